"""The port to new ids."""

from abc import abstractmethod
from typing import Protocol
from uuid import UUID


class IdGenerator(Protocol):
    """Makes ids that sort by the time they were made."""

    @abstractmethod
    def new(self) -> UUID:
        """Return a new UUIDv7 (RFC 9562), greater than those this process made before."""
