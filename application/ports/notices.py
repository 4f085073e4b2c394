"""The port through which processes tell each other that what they remember is no longer so."""

from abc import abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol


class Topic(StrEnum):
    """What may have changed."""

    CREDENTIALS = "credentials"
    """A key, a session, a membership or a user: what is remembered of any must be forgotten."""
    KEY_RING = "key_ring"
    """There is another wrapping key."""


class Notices(Protocol):
    """Told to all processes of the installation, this one too, as soon as the transaction is committed.

    Memory that relies on it holds only while `listening`: where the line is cut, nothing is to be remembered.
    """

    @abstractmethod
    async def tell(self, topic: Topic) -> None:
        """Tell it with the commit of the request's transaction; one that is rolled back tells nothing."""


class Listener(Protocol):
    """This process's end of the line."""

    @property
    @abstractmethod
    def listening(self) -> bool:
        """Whether every notice is heard at this moment."""

    @abstractmethod
    def on(self, topic: Topic, forget: Callable[[], None]) -> None:
        """Call `forget` at each notice, and whenever some may have been missed."""
