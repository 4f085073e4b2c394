"""The port to counting how often somebody may do something."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many in so many seconds."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of a rate."""

    allowed: bool
    remaining: int
    """How many more are allowed at this moment."""
    reset_after: float
    """Seconds until all of them are."""
    retry_after: float
    """Seconds until one is allowed again; 0 where one is."""


class RateLimiter(Protocol):
    """Counts over a moving window, exactly over all processes that share the backend.

    When the backend is down each process counts for itself: a limit that is too mild for a while, rather than
    a service that is shut or one without any limit.
    """

    @abstractmethod
    async def take(self, key: str, rate: Rate) -> Allowance:
        """Count one for `key`, where the rate allows it; one that is refused is not counted. Raises nothing."""

    @abstractmethod
    async def look(self, key: str, rate: Rate) -> Allowance:
        """Say what `take` would, and count nothing. Raises nothing."""
