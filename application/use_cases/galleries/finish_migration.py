from dataclasses import dataclass, replace
from datetime import timedelta
from typing import final

from application.ports.clock import Clock
from application.ports.gallery_moves import GalleryMoves
from application.ports.repositories import GalleryRepository, JobRepository
from application.ports.transaction import Transaction
from application.use_cases.galleries.migrate_gallery import require_idle, require_served
from application.use_cases.galleries.move_order import MoveOrder
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.matching.search_faces import LONGEST
from application.use_cases.spaces import ServedSpaces
from domain.errors import MigrationNotFound
from domain.gallery import GalleryId
from domain.job import Job, JobWork
from domain.workspace import WorkspaceId

KEPT_FOR = timedelta(seconds=2 * LONGEST)
"""Templates of the former model stay for so long after a switch: searches that began before it end in them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FinishMigration:
    """Keep what the gallery's present model made, and give up what it has of the other one.

    After a switch that ends the way back; before one it gives up the migration. References that could not follow
    keep the template that they have, and are still listed.
    """

    spaces: ServedSpaces
    galleries: GalleryRepository
    moves: GalleryMoves
    jobs: JobRepository
    start_job: StartJob
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, gallery: GalleryId | str) -> Job:
        """Start it, two minutes after a switch at the earliest.

        Raises `MigrationNotFound`, `MigrationRunning`, and `SpaceNotServed`, since only a space that is served can
        be taken from the index.
        """
        place = await self.galleries.get(workspace, gallery, lock=True)
        move = await self.moves.get(workspace, place.id, lock=True)
        if move is None:
            raise MigrationNotFound("the gallery is not on its way from one model to another")
        await require_idle(self.jobs, move)
        require_served(self.spaces, move.source, move.target)
        wait = timedelta(0) if move.switched_at is None else move.switched_at + KEPT_FOR - self.clock.now()
        order = MoveOrder(
            workspace=workspace,
            gallery=place.id,
            source=move.beside(place.space),
            target=place.space,
            settle=True,
        )
        job = await self.start_job(
            workspace=workspace,
            kind=JobWork.GALLERY_MIGRATION,
            parameters=order.parameters(),
            gallery=place.id,
            delay=max(timedelta(0), wait),
        )
        await self.moves.save(replace(move, job=job.id, asked_at=self.clock.now()))
        await self.transaction.commit()
        await self.start_job.after_commit(job)
        return job
