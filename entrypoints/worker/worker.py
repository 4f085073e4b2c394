"""The background worker: the same container as the service's, without a door."""

import asyncio

import structlog
from dishka import AsyncContainer

from application.ports.job_queue import JobQueue, SignsOfLife
from domain.errors import PortError
from entrypoints.settings import PREFIX, Settings
from entrypoints.signals import told_to_end
from entrypoints.wiring.background import IN_PROCESS, work
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import started

log = structlog.get_logger("facepass.worker")


async def work_until_told(container: AsyncContainer) -> None:
    """Do jobs and regular work until SIGINT or SIGTERM; what runs then is given back to the queue.

    Raises `StartError` where the queue is the service's own, or something cannot start.
    """
    _require_shared(await container.get(Settings))
    with told_to_end() as told:
        waiting = asyncio.create_task(told.wait())
        working = asyncio.create_task(_work(container))
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if working.done():
            working.result()
        log.info("worker_stops")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def seen(container: AsyncContainer) -> float | None:
    """Return how many seconds ago a worker of this host gave a sign of life, None where none does.

    Raises `StartError` where the queue has no workers, or none that can be asked about.
    """
    settings = await container.get(Settings)
    _require_shared(settings)
    queue: object = await container.get(JobQueue)
    if not isinstance(queue, SignsOfLife):
        raise StartError(f"the queue {settings.job_queue.backend!r} does not tell whether its workers are alive")
    try:
        return await queue.last_seen()
    except PortError as error:
        raise StartError(f"{error.message} ({error.code})") from error


async def _work(container: AsyncContainer) -> None:
    await started(container)
    log.info("worker_ready")
    await work(container)


def _require_shared(settings: Settings) -> None:
    if settings.job_queue.backend == IN_PROCESS:
        raise StartError(
            f"{PREFIX}JOB_QUEUE__BACKEND: {IN_PROCESS} is done by the service itself; "
            "workers need a queue that they share with it, such as arq"
        )
