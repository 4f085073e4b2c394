"""The port to kept images and files."""

import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NewType, Protocol, runtime_checkable

from domain.errors import InvalidValue

BlobKey = NewType("BlobKey", str)
"""Made by us from ids, never from a client's words: segments of a-z, 0-9 and '-', joined by '/'."""

_KEY = re.compile(r"[a-z0-9-]{1,64}(/[a-z0-9-]{1,64}){0,7}")


def blob_key(*segments: object) -> BlobKey:
    """Join segments into a key. Raises `InvalidValue` for anything that could leave its place."""
    return checked_blob_key("/".join(str(segment) for segment in segments))


def checked_blob_key(key: str) -> BlobKey:
    """Return `key` as one. Raises `InvalidValue` unless it has the form that `BlobKey` describes."""
    if not _KEY.fullmatch(key):
        raise InvalidValue("a blob key has segments of a-z, 0-9 and '-' joined by '/'", field="key")
    return BlobKey(key)


class BlobStore(Protocol):
    """Bytes under keys. What is handed in is sealed already: no store ever sees an image.

    When it is down, whatever needs it answers `PortUnavailable` before anything is written to the record.
    """

    @abstractmethod
    async def put(self, key: BlobKey, content: bytes) -> None:
        """Keep `content`, all of it or nothing; what was there is replaced at once.

        On return it survives a power cut. Raises `InvalidValue` for a hostile key and `PortUnavailable`.
        """

    @abstractmethod
    async def get(self, key: BlobKey) -> bytes | None:
        """Return what is kept, None where nothing is. Raises `InvalidValue` and `PortUnavailable`."""

    @abstractmethod
    async def remove(self, key: BlobKey) -> None:
        """Remove it; nothing happens where there is nothing. Raises `InvalidValue` and `PortUnavailable`."""

    @abstractmethod
    def keys(self, prefix: str) -> AsyncIterator[BlobKey]:
        """Walk through the keys that begin with `prefix`, in order; half-written ones are not among them."""


@runtime_checkable
class PresignedUrls(Protocol):
    """Registered by stores that clients can reach themselves: one object, one method, for a short time."""

    @abstractmethod
    async def url_to_put(self, key: BlobKey, *, seconds: int) -> str:
        """Return an address that takes one PUT of `key`. Raises `InvalidValue` and `PortUnavailable`."""

    @abstractmethod
    async def url_to_get(self, key: BlobKey, *, seconds: int) -> str:
        """Return an address that answers GET of `key`. Raises `InvalidValue` and `PortUnavailable`."""


class BlobStoreFactory(Protocol):
    """What an entry point of the group `facepass.blob_store` names."""

    @abstractmethod
    def __call__(self, *, options: Mapping[str, str]) -> AbstractAsyncContextManager[BlobStore]:
        """Open a store for a block; `options` are the settings `FACEPASS_BLOB_STORE__OPTIONS__*` in lower case."""
