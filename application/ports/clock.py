"""The port to time."""

from abc import abstractmethod
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Says what time it is."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the time in UTC, with its zone, to the microsecond (what PostgreSQL keeps)."""
