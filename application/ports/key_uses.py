"""The port that keeps when API keys were last used."""

from abc import abstractmethod
from datetime import datetime
from typing import Protocol

from domain.credential import ApiKey


class KeyUses(Protocol):
    """Takes uses as they come, and writes them down a little later: no call waits for it."""

    @abstractmethod
    def note(self, key: ApiKey, at: datetime) -> None:
        """Take one; what the key says of an earlier one saves writing it more than once a minute. Raises nothing."""
