"""The port to the end of a unit of work."""

from abc import abstractmethod
from typing import Protocol


class Transaction(Protocol):
    """The one transaction that all repositories of a request share. It begins with the first query.

    What is not committed is rolled back when the request ends, however it ends.
    """

    @abstractmethod
    async def commit(self) -> None:
        """Make everything durable and visible, all of it or nothing. Called once, by the use case.

        Another query after it begins another transaction. Raises `PortUnavailable` where the database is
        gone; then the outcome is unknown, and callers repeat with the same idempotency key.
        """

    @abstractmethod
    async def rollback(self) -> None:
        """Forget everything since the last commit."""
