from collections.abc import AsyncIterator
from typing import final

from application.ports.blob_store import BlobKey, BlobStore, checked_blob_key
from application.ports.ping import Ping


@final
class MemoryBlobStore(BlobStore, Ping):
    """Blobs in a dictionary, gone with the process: for tests and for trying things out."""

    def __init__(self) -> None:
        self._blobs: dict[BlobKey, bytes] = {}

    @property
    def name(self) -> str:
        return "blob_store"

    async def put(self, key: BlobKey, content: bytes) -> None:
        self._blobs[checked_blob_key(key)] = content

    async def get(self, key: BlobKey) -> bytes | None:
        return self._blobs.get(checked_blob_key(key))

    async def remove(self, key: BlobKey) -> None:
        self._blobs.pop(checked_blob_key(key), None)

    async def keys(self, prefix: str) -> AsyncIterator[BlobKey]:
        for key in sorted(self._blobs):
            if key.startswith(prefix):
                yield key

    async def ping(self) -> None:
        return
