"""The ports to passwords: hashing them, and knowing which are tried first."""

from abc import abstractmethod
from typing import Protocol


class PasswordHasher(Protocol):
    """Slow on purpose, in threads of its own: nothing else waits for it, and only so many run at once.

    Raises `PortBusy` where too many wait.
    """

    @abstractmethod
    async def hashed(self, password: str) -> str:
        """Return a salted hash that says by which parameters it was made."""

    @abstractmethod
    async def verified(self, password: str, password_hash: str | None) -> bool:
        """Tell whether it is the hash of this password; None takes as long as a wrong one, and is False."""

    @abstractmethod
    def outdated(self, password_hash: str) -> bool:
        """Tell whether a hash was made by weaker parameters than today's."""


class CommonPasswords(Protocol):
    """The passwords that are tried first."""

    @abstractmethod
    def contains(self, password: str) -> bool:
        """Tell whether it is among them, or as good as one of them, without regard to case."""
