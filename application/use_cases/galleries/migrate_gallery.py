from dataclasses import dataclass
from typing import final

from application.ports.clock import Clock
from application.ports.gallery_moves import GalleryMove, GalleryMoves
from application.ports.repositories import GalleryRepository, JobRepository
from application.ports.transaction import Transaction
from application.use_cases.galleries.move_order import MoveOrder
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.spaces import ServedSpaces
from domain.embedding import SpaceId
from domain.errors import (
    InvalidValue,
    JobNotFound,
    MigrationRunning,
    MigrationUnfinished,
    SpaceInUse,
    SpaceNotServed,
    ThresholdFixed,
)
from domain.gallery import Gallery, GalleryId
from domain.job import Job, JobWork
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateGallery:
    """Move a gallery to the other model that is served, in the background, while it is in use.

    A job embeds every reference anew from its kept image, and compares what the two models decide; the report stands
    in the job's result and in the gallery's migration. Nothing else changes until `switch` is asked for: then what
    was enrolled meanwhile follows, and from one moment on the gallery is with the other model. References that cannot
    follow (their image was not kept, say) are listed, and hold the switch up unless `leave_behind` is said: they
    stay, and cannot be found. To take it back, move it to the former model; until the migration is finished, that one
    needs little to catch up.
    """

    spaces: ServedSpaces
    galleries: GalleryRepository
    moves: GalleryMoves
    jobs: JobRepository
    start_job: StartJob
    transaction: Transaction
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        to: str | None = None,
        switch: bool = False,
        leave_behind: bool = False,
    ) -> Job:
        """Start it; `to` is a pack, a model (`<pack>@<version>`) or a space, None the only other one that is served.

        Raises `SpaceNotServed`, `SpaceInUse`, `MigrationRunning`, `MigrationUnfinished`, `ThresholdFixed`.
        """
        place = await self.galleries.get(workspace, gallery, lock=True)
        target = self._target(place, to)
        require_served(self.spaces, place.space)
        if place.space == target:
            raise SpaceInUse(f"the gallery is with {target} already")
        require_no_fixed_threshold(place)
        before = await self.moves.get(workspace, place.id, lock=True)
        await require_idle(self.jobs, before)
        if before is not None and before.beside(place.space) != target:
            raise MigrationUnfinished(
                f"the gallery still has templates of {before.beside(place.space)}: finish that migration first"
            )
        order = MoveOrder(
            workspace=workspace,
            gallery=place.id,
            source=place.space,
            target=target,
            switch=switch,
            leave_behind=leave_behind,
        )
        job = await self.start_job(
            workspace=workspace, kind=JobWork.GALLERY_MIGRATION, parameters=order.parameters(), gallery=place.id
        )
        await self.moves.save(
            GalleryMove(
                workspace=workspace,
                gallery=place.id,
                source=place.space,
                target=target,
                job=job.id,
                report=before.report if before is not None and before.target == target else None,
                switched_at=None if before is None else before.switched_at,
                asked_at=self.clock.now(),
            )
        )
        await self.transaction.commit()
        await self.start_job.after_commit(job)
        return job

    def _target(self, gallery: Gallery, to: str | None) -> SpaceId:
        served = self.spaces.all
        if to is None:
            others = [one.id for one in served if one.id != gallery.space]
            if len(others) > 1:
                raise InvalidValue(f"say which of the models: {', '.join(sorted(others))}", field="to")
            found = others
        else:
            found = [one.id for one in served if to in {one.id, one.model, one.model.partition("@")[0]}]
        if not found:
            raise _not_served(self.spaces, "other model" if to is None else f"model {to!r}")
        # Two versions of one pack: the one where the gallery is not.
        return next((space for space in found if space != gallery.space), found[0])


def require_served(spaces: ServedSpaces, *wanted: SpaceId) -> None:
    """Raise `SpaceNotServed` unless this service has a model of each."""
    for space in wanted:
        if space not in {one.id for one in spaces.all}:
            raise _not_served(spaces, f"model of {space}")


def require_no_fixed_threshold(gallery: Gallery) -> None:
    """Raise `ThresholdFixed` where the policy has a cosine, which another model would give another meaning."""
    if gallery.policy.verification_threshold is not None or gallery.policy.search_threshold is not None:
        raise ThresholdFixed(
            "the gallery's policy has a fixed threshold, a cosine of the model it was chosen for: set it to null,"
            " and a target error rate in its place"
        )


async def require_idle(jobs: JobRepository, move: GalleryMove | None) -> None:
    """Raise `MigrationRunning` where the job that was last asked for has not ended."""
    if move is None:
        return
    try:
        job = await jobs.get(move.workspace, move.job)
    except JobNotFound:
        return
    if not job.ended:
        raise MigrationRunning(f"job {job.id} is moving this gallery: wait for it, or cancel it")


def _not_served(spaces: ServedSpaces, wanted: str) -> SpaceNotServed:
    return SpaceNotServed(
        f"this service has no {wanted}, it has {', '.join(sorted(one.id for one in spaces.all))}: the settings"
        " FACEPASS_NEXT_FACE_EMBEDDER__BACKEND and FACEPASS_NEXT_FACE_EMBEDDER__PACK give it a second one"
    )
