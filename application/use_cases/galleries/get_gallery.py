from dataclasses import dataclass
from typing import final

from application.ports.record import Record
from domain.calibration import Calibration
from domain.decision import Capacity, capacity
from domain.gallery import Gallery, GalleryId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryState:
    """A gallery, and whether its pack is still good enough for its size."""

    gallery: Gallery
    capacity: Capacity


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetGallery:
    """Show a gallery by id or name, with its number of references and what to expect of a search in it.

    A gallery has outgrown its pack where more than the bound of its people would not be found at the
    gallery's target; then a stronger pack is needed, and the answer says so.
    """

    record: Record
    calibration: Calibration

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str) -> GalleryState:
        found = await self.record.gallery(workspace, gallery)
        references = await self.record.references_in(workspace, found.id)
        return GalleryState(
            gallery=found, capacity=capacity(self.calibration, policy=found.policy, references=references)
        )
