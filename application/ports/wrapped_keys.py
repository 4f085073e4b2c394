"""The port to all wrapped data keys at once, for changing what wraps them."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from application.ports.cipher import WrappedKey


class WrappedKeys(Protocol):
    """Every wrapped data key of the record: people's, jobs', users', remembered answers'.

    Each method raises `PortUnavailable` where the database is gone.
    """

    @abstractmethod
    async def counts(self) -> Mapping[int, int]:
        """Return how many there are by the number of the wrapping key."""

    @abstractmethod
    def rewrap(self, rewrapped: Callable[[WrappedKey], WrappedKey], *, number: int) -> AsyncIterator[int]:
        """Walk once through those that another key than `number` wraps, and replace each by its `rewrapped`.

        Yields how many were replaced, page by page; each page is committed by then. One that changes or goes meanwhile
        is left as it is, and so is one for which `rewrapped` raises `CannotOpen`: no key opens it any more.
        """

    @abstractmethod
    async def written(self) -> None:
        """Wait until every transaction that writes any of them at this moment has ended."""
