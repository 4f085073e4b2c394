import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import final

from application.ports.clock import Clock
from application.use_cases.jobs.change_job import JobScope
from application.use_cases.jobs.handlers import JobStopped, ReportProgress
from domain.errors import JobNotFound, PortError
from domain.job import Job, JobProgress

WRITTEN_EVERY = 1.0
"""Seconds between two writes of a job's progress: nobody who watches sees more."""


@final
class HeldJob(ReportProgress):
    """A job that runs here: keeps its lease, and writes how far it is."""

    def __init__(self, job: Job, *, scope: JobScope, clock: Clock, lease: timedelta) -> None:
        """Take a job that was claimed at this moment."""
        self.job = job
        self.progress = job.progress
        self.result = job.result
        self.stopped = False
        """Whether the handler was told to end."""
        self._scope = scope
        self._clock = clock
        self._lease = lease
        self._cancel = job.cancel_requested
        self._lost = False
        self._writing = asyncio.Lock()
        self._ends = _time() + lease.total_seconds()
        self._written = _time()

    async def __call__(
        self, done: int, total: int | None = None, stage: str = "", *, result: Mapping[str, object] | None = None
    ) -> None:
        """Take the handler's word for how far it is. Raises `JobStopped`."""
        self.progress = JobProgress(done=done, total=total, stage=stage)
        if result is not None:
            self.result = result
            await self._renew()
        elif _time() - self._written >= WRITTEN_EVERY:
            with suppress(PortError):  # written with the next one; the lease is seen to by `keep`
                await self._renew()
        if self._cancel or self._lost:
            self.stopped = True
            raise JobStopped

    def keep(self) -> "asyncio.Task[None]":
        """Renew the lease at a third of its length, in a task that ends once it is lost."""
        return asyncio.create_task(self._keep())

    async def let_go(self, keeping: "asyncio.Task[None]") -> None:
        """Renew it no more. Not in the middle of a renewal, which would cost a connection."""
        async with self._writing:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    def ended(self, job: Job, by: Callable[[Job, datetime], Job | None]) -> Job | None:
        """Return what `by` makes of the job where it is still held, as far as it has come; else None."""
        now = self._clock.now()
        held = job.renewed(self.job.run, held_until=now + self._lease, progress=self.progress, result=self.result)
        return None if held is None else by(held, now)

    async def _keep(self) -> None:
        third = self._lease.total_seconds() / 3
        pause = third
        with suppress(TimeoutError):
            while not self._lost:
                async with asyncio.timeout_at(self._ends):
                    await asyncio.sleep(pause)
                    try:
                        await self._renew()
                        pause = third
                    except PortError:
                        # A database that is away for less than the lease stops no job.
                        pause = third / 5
        self._lost = True

    async def _renew(self) -> None:
        async with self._writing:
            begun = self._written = _time()
            try:
                async with self._scope() as change:
                    job = await change(
                        workspace=self.job.workspace,
                        job=self.job.id,
                        by=lambda now: now.renewed(
                            self.job.run,
                            held_until=self._clock.now() + self._lease,
                            progress=self.progress,
                            result=self.result,
                        ),
                    )
            except JobNotFound:
                job = None
            if job is None:
                self._lost = True
            else:
                self._ends = begun + self._lease.total_seconds()
                self._cancel = job.cancel_requested


def _time() -> float:
    return asyncio.get_running_loop().time()
