"""The port to what an installation holds over all its workspaces."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

from domain.embedding import SpaceId
from domain.gallery import Gallery, GalleryId


class Inventory(Protocol):
    """For upkeep of the whole installation alone: everything else names a workspace.

    Reads what is committed at this moment. Raises `PortUnavailable` where the database is gone.
    """

    @abstractmethod
    async def galleries(self, *, after: GalleryId | None, limit: int) -> Sequence[Gallery]:
        """Return up to `limit` galleries of all workspaces behind `after`, by id."""

    @abstractmethod
    async def spaces(self) -> Mapping[SpaceId, Sequence[Gallery]]:
        """Return the embedding spaces that references are searched in, with the galleries of these, by id.

        Those of galleries without any reference are left out. A gallery that moves to another model is in both.
        """

    @abstractmethod
    async def waiting(self) -> int:
        """Return how many references are noted to be brought in line, and were tried in vain at least once."""
