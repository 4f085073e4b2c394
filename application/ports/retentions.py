"""The port to what is known of when people are due to be erased."""

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


class Retentions(Protocol):
    """Reads what `domain.retention` says of people, for those that are kept at this moment."""

    @abstractmethod
    async def erase_after(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> datetime | None:
        """Return when somebody is due, by what was set for them and then by their gallery; None for never.

        None too for somebody who is not there, and for those merged into another, who are kept as long as that one.
        """

    @abstractmethod
    async def is_due(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId, now: datetime) -> bool:
        """Whether somebody is due, by the earlier of `now` and the database's clock: neither, ahead, erases anybody."""

    @abstractmethod
    async def due(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, GalleryId, PersonId]]:
        """Return up to `limit` people of all workspaces who are due, the longest first: for upkeep alone.

        By the same clocks.
        """
