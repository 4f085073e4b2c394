"""What a running service does beside answering: jobs, sweeps, upkeep."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import structlog
from dishka import AsyncContainer, Scope

from application.ports.job_queue import JobKind, JobQueue, QueuedJob
from application.ports.upkeep import Upkeep
from application.use_cases.references.reconcile import Reconcile
from application.use_cases.upkeep.repair import Repair
from domain.enrolment import ReferenceId
from domain.errors import FacepassError
from entrypoints.settings import Settings

log = structlog.get_logger("facepass.background")


@asynccontextmanager
async def background(container: AsyncContainer) -> AsyncIterator[None]:
    """Run jobs and upkeep until the block ends; what was running is given back, and noted in the record anyway."""
    tasks = [asyncio.create_task(_jobs(container)), asyncio.create_task(_sweeps(container))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _jobs(container: AsyncContainer) -> None:
    queue = await container.get(JobQueue)

    async def handle(job: QueuedJob) -> None:
        match job.kind:
            case JobKind.RECONCILE:
                async with container(scope=Scope.REQUEST) as unit:
                    reconcile = await unit.get(Reconcile)
                    await reconcile(workspace=job.workspace, references=[ReferenceId(job.subject)])

    await queue.run(handle)


async def _sweeps(container: AsyncContainer) -> None:
    settings = await container.get(Settings)
    upkeep = await container.get(list[Upkeep])
    while True:
        await _done(_repair(container), "repair")
        for one in upkeep:
            await _done(one.tidy(), one.name)
        await asyncio.sleep(settings.job_queue.upkeep_seconds)


async def _repair(container: AsyncContainer) -> None:
    async with container(scope=Scope.REQUEST) as unit:
        await (await unit.get(Repair))()


async def _done(work: Awaitable[None], name: str) -> None:
    """Wait for one piece of upkeep. It comes round again in seconds, so a failure is a line in the log."""
    try:
        await work
    except FacepassError as error:
        log.warning("upkeep_failed", what=name, code=error.code, reason=error.message)
    except Exception as error:
        log.exception("upkeep_failed", what=name, exc_info=error)
