import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import SystemRandom
from typing import final

from application.ports.clock import Clock
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.job_queue import JobKind, JobQueue, QueuedJob
from application.use_cases.audit.origin import SYSTEM, done_for
from application.use_cases.jobs.change_job import JobScope
from application.use_cases.jobs.handlers import JobHandlers
from application.use_cases.jobs.held_job import HeldJob
from domain.errors import FacepassError, PackUnavailable, PortError
from domain.job import FIRST_WAIT, INTERNAL_ERROR, TIMED_OUT, Job, JobId, JobStatus, wait_before_retry
from domain.workspace import WorkspaceId

LEASE = timedelta(seconds=30)
"""How long a job of a worker that died is left alone. Clocks of processes may differ by a few seconds, and a
database be away for twenty, without a job being run twice at once."""

JOBS_AT_ONCE = 2
"""Long jobs of one process: a queue has other work to carry, which must not wait for hours. More of them wait in the
record, for other processes or for one of these to end."""

PASSING = (PortUnavailable, PortBusy, PackUnavailable)
"""Errors of the core that a repetition can help; all others say something that stays so."""

End = Callable[[Job, datetime], Job | None]
"""What becomes of a job that is still held, at a time."""

Unexpected = Callable[[Job, BaseException], None]
"""Told about errors that are none of the core: mistakes of ours, of which the record says nothing but the name."""

_RANDOM = SystemRandom()


@final
@dataclass(slots=True, kw_only=True)
class RunJob:
    """Do one job of the record, where it waits and is due, or its worker died; else nothing.

    It is held under a lease, which is renewed while the handler works, so a queue that delivers twice does no harm. A
    run ends with success, with a failure that is tried again after a growing, random wait or ends the job, cancelled,
    or given back because the process is going; whichever it is, it is written only if the job is still held.
    """

    handlers: JobHandlers
    scope: JobScope
    queue: JobQueue
    clock: Clock
    unexpected: Unexpected
    lease: timedelta = LEASE
    first_wait: timedelta = FIRST_WAIT
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(JOBS_AT_ONCE), init=False)

    async def __call__(self, *, workspace: WorkspaceId, job: JobId) -> Job | None:
        """Return what became of it; None where it was not to be run here, or is another's by now.

        Raises `PortUnavailable` and `PortBusy` where the database is gone; `asyncio.CancelledError` gives it back.
        """
        if self._free.locked():
            return None
        async with self._free:
            async with self.scope() as change:
                claimed = await change(workspace=workspace, job=job, by=self._claimed)
            if claimed is None or claimed.ended:
                return claimed
            left = await self._run(claimed)
        if left is not None and left.status is JobStatus.QUEUED:
            wait = (left.due_at - self.clock.now()).total_seconds()
            with suppress(PortError):  # the sweep sees to it
                await self.queue.put(
                    QueuedJob(kind=JobKind.JOB, workspace=workspace, subject=job), delay=max(0.0, wait)
                )
        return left

    def _claimed(self, job: Job) -> Job | None:
        return job.claimed(self.clock.now(), lease=self.lease) if job.kind in self.handlers else None

    async def _run(self, job: Job) -> Job | None:
        held = HeldJob(job, scope=self.scope, clock=self.clock, lease=self.lease)
        try:
            end = await self._end_of(held)
            return None if end is None else await self._change(held, end)
        except asyncio.CancelledError:
            with suppress(PortError):  # the lease runs out
                await self._change(held, lambda now, at: now.given_back(job.run, at))
            raise

    async def _end_of(self, held: HeldJob) -> End | None:
        """Run the handler, and return what its end makes of the job: nothing where the lease was lost."""
        job = held.job
        # The entry that says it was started has the job's id too, and who asked for it.
        with done_for(replace(SYSTEM, request=str(job.id))):
            working = asyncio.create_task(self.handlers[job.kind](job, held))
        keeping = held.keep()
        try:
            done, _ = await asyncio.wait(
                {working, keeping}, timeout=job.time_limit.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await held.let_go(keeping)
        if working in done:
            return self._said(held, working)
        if keeping in done:
            keeping.result()
            return None
        return self._failed(job, TIMED_OUT, f"it did not end within {job.time_limit}", again=True)

    def _said(self, held: HeldJob, working: "asyncio.Task[Mapping[str, object]]") -> End:
        job = held.job
        error = asyncio.CancelledError() if working.cancelled() else working.exception()
        if error is None:
            return lambda now, at: now.succeeded(job.run, at, result=working.result())
        if held.stopped:
            return lambda now, at: now.stopped(job.run, at)
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, FacepassError):
            return self._failed(job, error.code, error.message, again=isinstance(error, PASSING))
        self.unexpected(job, error)
        # Its message may hold what belongs to a person.
        return self._failed(job, INTERNAL_ERROR, type(error).__qualname__, again=True)

    def _failed(self, job: Job, code: str, detail: str, *, again: bool) -> End:
        wait = wait_before_retry(job.attempts + 1, chance=_RANDOM.random(), first=self.first_wait) if again else None
        return lambda now, at: now.failed(job.run, at, code=code, detail=detail, wait=wait)

    async def _change(self, held: HeldJob, end: End) -> Job | None:
        async with self.scope() as change:
            return await change(workspace=held.job.workspace, job=held.job.id, by=lambda now: held.ended(now, end))
