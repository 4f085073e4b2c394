from dataclasses import dataclass
from typing import final

from application.ports.record import Record
from application.use_cases.spaces import ServedSpaces
from domain.decision import Capacity, capacity
from domain.errors import SpaceMismatch
from domain.gallery import Gallery, GalleryId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryState:
    """A gallery, and whether its pack is still good enough for its size."""

    gallery: Gallery
    references: int
    capacity: Capacity | None
    """None where the gallery's embedding space is not served by this process."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetGallery:
    """Show a gallery by id or name, with its number of references and what to expect of a search in it.

    A gallery has outgrown its pack where more than the bound of its people would not be found at the
    gallery's target; then a stronger pack is needed, and the answer says so.
    """

    record: Record
    spaces: ServedSpaces

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str) -> GalleryState:
        found = await self.record.gallery(workspace, gallery)
        references = await self.record.references_in(workspace, found.id)
        return GalleryState(gallery=found, references=references, capacity=self._capacity(found, references))

    def _capacity(self, gallery: Gallery, references: int) -> Capacity | None:
        try:
            curve = self.spaces.of(gallery.space).calibration
        except SpaceMismatch:
            return None
        return capacity(curve, policy=gallery.policy, references=references)
