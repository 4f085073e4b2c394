from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import final

from application.ports.repositories import JobRepository
from application.ports.transaction import Transaction
from application.use_cases.erasure.erased_in_reports import ErasedInReports
from domain.job import Job, JobId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeJob:
    """Change a job by one of its own methods, while nobody else can.

    Its result is kept without whoever was erased since it came of the job.
    """

    jobs: JobRepository
    erased: ErasedInReports
    transaction: Transaction

    async def __call__(self, *, workspace: WorkspaceId, job: JobId, by: Callable[[Job], Job | None]) -> Job | None:
        """Return what it has become; None where `by` said so, and nothing was changed. Raises `JobNotFound`."""
        before = await self.jobs.get(workspace, job, lock=True)
        changed = by(before)
        if changed is None:
            await self.transaction.rollback()
            return None
        if changed.result is not None and changed.result != before.result:
            result = await self.erased.left_out(workspace, changed.result, before=before.result)
            changed = replace(changed, result=result)
        await self.jobs.save(changed)
        await self.transaction.commit()
        return changed


JobScope = Callable[[], AbstractAsyncContextManager[ChangeJob]]
"""Opens a unit of work of its own: a job is renewed while its handler is in the middle of another transaction."""
