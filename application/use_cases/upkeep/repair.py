from contextlib import suppress
from dataclasses import dataclass
from typing import final

from application.ports.clock import Clock
from application.ports.errors import PortBusy
from application.ports.job_queue import JobKind, JobQueue, QueuedJob
from application.ports.repositories import AnswerRepository, ReconciliationRepository
from application.ports.transaction import Transaction
from application.use_cases.jobs.sweep_jobs import SweepJobs

_AT_ONCE = 500


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Put what was noted and not done on the queue, and forget answers and jobs that nobody needs any more.

    Finds what a crash left behind, what a dead backend could not take, and nothing else. Called every
    few seconds: what waits already is not put twice.
    """

    reconciliations: ReconciliationRepository
    answers: AnswerRepository
    sweep_jobs: SweepJobs
    queue: JobQueue
    transaction: Transaction
    clock: Clock

    async def __call__(self) -> int:
        """Return how many references wait."""
        now = self.clock.now()
        due = await self.reconciliations.due(now, limit=_AT_ONCE)
        await self.answers.purge(now)
        await self.transaction.commit()
        # Before the many: a queue that is full of references must not keep jobs out.
        await self.sweep_jobs()
        with suppress(PortBusy):  # the others wait for the next sweep
            for workspace, reference in due:
                await self.queue.put(QueuedJob(kind=JobKind.RECONCILE, workspace=workspace, subject=reference))
        return len(due)
