from dataclasses import dataclass
from datetime import datetime
from typing import Final, final
from uuid import UUID

from application.ports.clock import Clock
from application.ports.repositories import JobRepository
from application.ports.transaction import Transaction
from domain.job import DATABASE_RESTORED, JobWork
from domain.workspace import WorkspaceId

_PAGE: Final = 100

_DETAIL: Final = (
    "the database was restored from a backup that was made before the batch was done: send what its result does not"
    " name again, with another idempotency key"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonBulkEnrolments:
    """End the bulk enrolments that a restored database still has to do: whom they bring may have been erased since.

    They fail, and say that the batch is to be sent again. What they have done so far stays done.
    """

    jobs: JobRepository
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, until: datetime | None = None) -> int:
        """Return how many were ended; with `until`, of those alone that were sent by then."""
        abandoned = 0
        after: UUID | None = None
        while True:
            page = await self.jobs.page(workspace, limit=_PAGE, after=after, kind=JobWork.BULK_ENROLMENT)
            for job in page.items:
                if job.ended or (until is not None and job.created_at > until):
                    continue
                locked = await self.jobs.get(workspace, job.id, lock=True)
                if not locked.ended:
                    await self.jobs.save(locked.abandoned(self.clock.now(), code=DATABASE_RESTORED, detail=_DETAIL))
                    abandoned += 1
            await self.transaction.commit()
            if (after := page.next_after) is None:
                return abandoned
