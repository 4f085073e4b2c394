"""What a running service does beside answering: jobs, sweeps, upkeep."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

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
    every = (await container.get(Settings)).job_queue.upkeep_seconds
    # Each by itself: building an index takes minutes, and repairs do not wait for it.
    tasks = [
        asyncio.create_task(_jobs(container)),
        asyncio.create_task(_regularly("repair", partial(_repair, container), every)),
        *(asyncio.create_task(_regularly(one.name, one.tidy, every)) for one in await container.get(list[Upkeep])),
    ]
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


async def _repair(container: AsyncContainer) -> None:
    async with container(scope=Scope.REQUEST) as unit:
        await (await unit.get(Repair))()


async def _regularly(name: str, work: Callable[[], Awaitable[None]], every: float) -> None:
    """Do one piece of upkeep again and again. It comes round in seconds, so a failure is a line in the log."""
    while True:
        try:
            await work()
        except FacepassError as error:
            log.warning("upkeep_failed", what=name, code=error.code, reason=error.message)
        except Exception as error:
            log.exception("upkeep_failed", what=name, exc_info=error)
        await asyncio.sleep(every)
