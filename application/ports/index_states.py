"""The ports to which vector index answers, and which one is kept in line beside it: reading that, and changing it."""

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from domain.enrolment import ReferenceId
from domain.gallery import GalleryId

IndexName = NewType("IndexName", str)
"""An index as this installation calls it: its backend's name, unless the operator gave another."""

KNOWN_WITHIN = 1.0
"""Seconds within which every process acts by a change; whoever relies on it waits for twice as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """What all processes of an installation agree upon."""

    serving: IndexName
    """Answers searches."""
    beside: IndexName | None = None
    """Is written to as well, while the installation moves from one to the other, either way."""
    filled: bool = False
    """Whether `beside` was filled and found to agree with the record, so that it may take over."""
    changed_at: datetime

    @property
    def written(self) -> tuple[IndexName, ...]:
        """Those that every change of the record goes to."""
        return (self.serving,) if self.beside is None else (self.serving, self.beside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far the filling of `beside` came: galleries by id, and the references of each by id."""

    gallery: GalleryId
    reference: ReferenceId
    """The last one that was written."""
    references: int
    """Walked so far, in all galleries."""


class IndexStates(Protocol):
    """One state for the whole installation, kept in the database."""

    @abstractmethod
    async def now(self, *, fresh: bool = False) -> IndexState:
        """Return the state; it may be `KNOWN_WITHIN` old, but for a `fresh` one, which costs a round trip.

        Raises `PortUnavailable` where the database is gone.
        """

    @abstractmethod
    async def mark(self) -> Mark | None:
        """Return how far the filling of `beside` came, None where it has not begun. Raises `PortUnavailable`."""

    @abstractmethod
    async def set_mark(self, state: IndexState, mark: Mark) -> bool:
        """Keep it until the state changes; False where another one holds by now. Raises `PortUnavailable`."""


class IndexStateChanges(Protocol):
    """Changes it with the running transaction."""

    @abstractmethod
    async def change(self, before: IndexState, after: IndexState) -> bool:
        """Replace `before` by `after`; False where something else holds by now. Raises `PortUnavailable`.

        This process knows of it with the commit.
        """
