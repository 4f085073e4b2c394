from dataclasses import dataclass
from enum import StrEnum
from typing import final

from application.ports.gallery_moves import GalleryMove, GalleryMoves, SpareTemplates, Standing
from application.ports.repositories import GalleryRepository, JobRepository
from domain.errors import JobNotFound, MigrationNotFound
from domain.gallery import Gallery, GalleryId
from domain.job import Job
from domain.workspace import WorkspaceId


class MigrationPhase(StrEnum):
    """How far a gallery is on its way to another model."""

    RUNNING = "running"
    """A job is at it."""
    STOPPED = "stopped"
    """The job has ended before all references were looked at; ask again, and it goes on where it stopped."""
    PREPARED = "prepared"
    """All that can follow have followed; the gallery is still with its model."""
    SWITCHED = "switched"
    """The gallery is with the other model, and can go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A gallery on its way."""

    gallery: Gallery
    move: GalleryMove
    phase: MigrationPhase
    standing: Standing
    """How many references are in the space that the gallery is to go to."""
    job: Job | None
    """The last one; None where it is not kept any more."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetMigration:
    """Show how far a gallery is on its way to another model, and how the decisions of the two compare."""

    galleries: GalleryRepository
    moves: GalleryMoves
    templates: SpareTemplates
    jobs: JobRepository

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str) -> Migration:
        place = await self.galleries.get(workspace, gallery)
        move = await self.moves.get(workspace, place.id)
        if move is None:
            raise MigrationNotFound("the gallery is not on its way from one model to another")
        try:
            job = await self.jobs.get(workspace, move.job)
        except JobNotFound:
            job = None
        standing = await self.templates.standing(workspace, place.id, move.target)
        return Migration(gallery=place, move=move, phase=_phase(place, move, standing, job), standing=standing, job=job)


def _phase(gallery: Gallery, move: GalleryMove, standing: Standing, job: Job | None) -> MigrationPhase:
    if job is not None and not job.ended:
        return MigrationPhase.RUNNING
    if gallery.space == move.target:
        return MigrationPhase.SWITCHED
    return MigrationPhase.PREPARED if not standing.lagging and move.report is not None else MigrationPhase.STOPPED
