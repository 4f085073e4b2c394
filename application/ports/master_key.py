"""The port to the one key that everything else is sealed under."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class MasterKey(Protocol):
    """Wraps the few secrets of the key ring, and nothing else: a start asks it a handful of times, a request never.

    It may be a file, or a service that never gives the key away (a KMS). Each method raises `PortUnavailable` where
    that is gone.
    """

    @property
    @abstractmethod
    def fingerprint(self) -> bytes:
        """Tells master keys apart and nothing about them: 1 to 64 bytes, always the same for the same key."""

    @abstractmethod
    async def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        """Encrypt 32 bytes, bound to `context`; different each time."""

    @abstractmethod
    async def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        """Decrypt. Raises `CannotOpen` for another key, another context, or a changed byte."""


class MasterKeyFactory(Protocol):
    """What an entry point of the group `facepass.master_key` names."""

    @abstractmethod
    def __call__(self, *, options: Mapping[str, str]) -> AbstractAsyncContextManager[MasterKey]:
        """Open a master key for a block; `options` are the settings `FACEPASS_MASTER_KEY_OPTIONS__*` in lower case."""
