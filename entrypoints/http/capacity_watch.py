"""Says in the log that a gallery has outgrown its pack."""

import time
from uuid import UUID

import structlog

from application.use_cases.galleries.get_gallery import GetGallery
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

EVERY_SECONDS = 600.0
"""How often one gallery is looked at, and so how often the warning is repeated."""

log = structlog.get_logger("facepass.capacity")


class CapacityWatch:
    """Looks at galleries that are enrolled into or searched, each one seldom."""

    def __init__(self, show: GetGallery) -> None:
        """Take what knows a gallery's state."""
        self._show = show
        self._next: dict[tuple[UUID, GalleryId | str], float] = {}

    async def look(self, workspace: WorkspaceId, gallery: GalleryId | str) -> None:
        """Warn where the expected FNIR at the gallery's size is over its bound."""
        now = time.monotonic()
        if now < self._next.get((workspace, gallery), 0.0):
            return
        self._next[workspace, gallery] = now + EVERY_SECONDS
        state = await self._show(workspace=workspace, gallery=gallery)
        if state.capacity.outgrown:
            expected = state.capacity.expected_fnir
            log.warning(
                "gallery_outgrown",
                gallery=str(state.gallery.id),
                references=state.capacity.references,
                expected_fnir="beyond the calibration" if expected is None else round(expected, 3),
                advice="a stronger model pack is needed for searches of this size: see `facepass models list`",
            )
