from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.repositories import JobRepository
from application.ports.transaction import Transaction
from domain.audit import AuditAction, AuditEvent
from domain.gallery import GalleryId
from domain.job import Job, JobId, require_among
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJob:
    """Cancel a job: at once where it waits; where it runs, as soon as it next says how far it is.

    What it has done by then stays done. One that is to be cancelled already is no error; one that has ended is.
    """

    jobs: JobRepository
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(
        self, *, workspace: WorkspaceId, job: JobId, galleries: frozenset[GalleryId] | None = None
    ) -> Job:
        found = require_among(await self.jobs.get(workspace, job, lock=True), galleries)
        cancelled = found.cancelled(self.clock.now())
        await self.jobs.save(cancelled)
        if not found.cancel_requested:
            self.audit.note(
                AuditEvent(
                    workspace=workspace,
                    action=AuditAction.JOB_CANCELLED,
                    subject=job,
                    details={"kind": found.kind.value},
                )
            )
        await self.transaction.commit()
        return cancelled
