"""The ports to which secret rotation the vectors of a gallery are turned by: reading that, and changing it."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

from domain.gallery import GalleryId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Rotations of one gallery have numbers, from 0, and each follows from its number and the installation's secret."""

    writes: int = 0
    """What is written is turned by this one."""
    also: int | None = None
    """Some of what was written is turned by this one, or will be: searches look by both."""

    @property
    def searched(self) -> tuple[int, ...]:
        """Those that a search looks by."""
        return (self.writes,) if self.also is None else (self.writes, self.also)


UNTURNED_YET = Rotation()
"""That of a gallery which was never given another."""


class Rotations(Protocol):
    """One a gallery, kept in the database.

    Raises `PortUnavailable` where that is gone.
    """

    @abstractmethod
    async def of(self, gallery: GalleryId, *, fresh: bool = False) -> Rotation:
        """Return a gallery's; it may be `index_states.KNOWN_WITHIN` old, but for a `fresh` one."""


class RotationChanges(Protocol):
    """Changes them with the running transaction.

    Raises `PortUnavailable` where the database is gone.
    """

    @abstractmethod
    async def change(self, workspace: WorkspaceId, gallery: GalleryId, before: Rotation, after: Rotation) -> bool:
        """Replace `before` by `after`; False where something else holds by now, or the gallery is gone.

        Every process knows of it `index_states.KNOWN_WITHIN` after the commit, this one too.
        """
