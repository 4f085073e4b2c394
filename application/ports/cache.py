"""The port to what may be forgotten at any moment."""

from abc import abstractmethod
from typing import Protocol


class Cache(Protocol):
    """Bytes under keys for some seconds, shared by all processes that share the backend.

    Nothing rests on it: a cache that is down is an empty one. `get` answers None and `put` keeps nothing; both
    say so in the log, once in a while, and wait for nobody longer than half a second.
    """

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """Return what was put, None where there is nothing or its time is over."""

    @abstractmethod
    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        """Keep `value` for so many seconds, in place of what was there."""

    @abstractmethod
    async def remove(self, key: str) -> None:
        """Forget it; nothing happens where there is nothing. Raises `PortUnavailable` where it could not."""
