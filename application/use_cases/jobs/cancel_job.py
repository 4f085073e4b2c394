from dataclasses import dataclass
from typing import final

from application.ports.clock import Clock
from application.ports.repositories import JobRepository
from application.ports.transaction import Transaction
from domain.job import Job, JobId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJob:
    """Cancel a job: at once where it waits; where it runs, as soon as it next says how far it is.

    What it has done by then stays done. One that is to be cancelled already is no error; one that has ended is.
    """

    jobs: JobRepository
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, job: JobId) -> Job:
        cancelled = (await self.jobs.get(workspace, job, lock=True)).cancelled(self.clock.now())
        await self.jobs.save(cancelled)
        await self.transaction.commit()
        return cancelled
