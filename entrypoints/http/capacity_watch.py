"""Says in the log that a gallery has outgrown its pack."""

import time
from uuid import UUID

import structlog

from application.use_cases.galleries.get_gallery import GetGallery
from domain.errors import FacepassError
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

EVERY_SECONDS = 600.0
"""How often one gallery is looked at, and so how often the warning is repeated."""

MOST_GALLERIES = 10_000
"""Galleries that are remembered; past it the one that was looked at first is forgotten, and looked at again."""

log = structlog.get_logger("facepass.capacity")


class CapacityWatch:
    """Looks at galleries that are enrolled into or searched, each one seldom."""

    def __init__(self, show: GetGallery) -> None:
        """Take what knows a gallery's state."""
        self._show = show
        self._next: dict[tuple[UUID, GalleryId | str], float] = {}

    async def look(self, workspace: WorkspaceId, gallery: GalleryId | str) -> None:
        """Warn where the expected FNIR at the gallery's size is over its bound.

        Never fails: it comes after the work that it is about, which is done.
        """
        now = time.monotonic()
        key = workspace, gallery
        if now < self._next.get(key, 0.0):
            return
        self._next.pop(key, None)  # to come last again: the dictionary is in the order of looking
        self._next[key] = now + EVERY_SECONDS
        if len(self._next) > MOST_GALLERIES:
            del self._next[next(iter(self._next))]
        try:
            state = await self._show(workspace=workspace, gallery=gallery)
        except FacepassError as error:
            log.warning("capacity_unknown", code=error.code, reason=error.message)
            return
        if state.capacity is not None and state.capacity.outgrown:
            expected = state.capacity.expected_fnir
            log.warning(
                "gallery_outgrown",
                gallery=str(state.gallery.id),
                references=state.capacity.references,
                expected_fnir="beyond the calibration" if expected is None else round(expected, 3),
                advice="a stronger model pack is needed for searches of this size: see `facepass models list`",
            )
