import asyncio
from collections.abc import Awaitable, Callable, Mapping

from application.use_cases.jobs.handlers import JobHandler, ReportProgress
from domain.job import Job


class Handler(JobHandler):
    """Does what it is told, or waits until it is released; remembers what it was given."""

    def __init__(self, work: Callable[[Job, ReportProgress], Awaitable[Mapping[str, object]]] | None = None) -> None:
        self._work = work
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.seen: list[Job] = []

    async def __call__(self, job: Job, progress: ReportProgress) -> Mapping[str, object]:
        self.seen.append(job)
        self.begun.set()
        if self._work is not None:
            return await self._work(job, progress)
        await self.release.wait()
        return {"seen": len(self.seen)}
