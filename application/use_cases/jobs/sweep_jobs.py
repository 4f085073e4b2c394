from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.blob_store import BlobStore
from application.ports.clock import Clock
from application.ports.errors import PortBusy, PortRejected
from application.ports.job_queue import JobKind, JobQueue, QueuedJob
from application.ports.repositories import JobSweep
from application.ports.transaction import Transaction
from application.use_cases.jobs.files import job_files
from domain.job import JobId
from domain.workspace import WorkspaceId

KEPT_FOR = timedelta(days=30)
"""A job that ended: long enough to look into last month's failures. Its row holds no personal data, so nothing urges;
rows that nobody looks at any more make lists long."""

_JOBS_AT_ONCE = 50
"""Put on the queue by one sweep: more than all workers begin until the next one."""

_CLEANED_AT_ONCE = 10


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SweepJobs:
    """Put jobs that wait and those of dead workers on the queue; clear up behind those that have ended."""

    jobs: JobSweep
    queue: JobQueue
    blobs: BlobStore
    transaction: Transaction
    clock: Clock

    async def __call__(self) -> int:
        """Return how many jobs wait."""
        now = self.clock.now()
        due = await self.jobs.due(now, limit=_JOBS_AT_ONCE)
        await self.jobs.purge(now - KEPT_FOR)
        littered = await self.jobs.with_files(now, limit=_CLEANED_AT_ONCE)
        await self.transaction.commit()
        with suppress(PortBusy):  # the others wait for the next sweep
            for workspace, job in due:
                await self.queue.put(QueuedJob(kind=JobKind.JOB, workspace=workspace, subject=job))
        for workspace, job in littered:
            with suppress(PortRejected):  # what cannot be removed holds up no other
                await self._clean(workspace, job)
        return len(due)

    async def _clean(self, workspace: WorkspaceId, job: JobId) -> None:
        async for key in self.blobs.keys(job_files(workspace, job)):
            await self.blobs.remove(key)
        # Afterwards: while the key is kept, there may be files.
        await self.jobs.without_files(workspace, job)
        await self.transaction.commit()
