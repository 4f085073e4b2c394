"""The background worker: the same container as the service's, without a door."""

import asyncio

import structlog
from dishka import AsyncContainer

from entrypoints.settings import Settings
from entrypoints.signals import told_to_end
from entrypoints.wiring.background import work
from entrypoints.wiring.startup import started
from entrypoints.worker.signs_of_life import require_workers

log = structlog.get_logger("facepass.worker")


async def work_until_told(container: AsyncContainer) -> None:
    """Do jobs and regular work until SIGINT or SIGTERM; what runs then is given back to the queue.

    Raises `StartError` where the queue is the service's own, or something cannot start.
    """
    require_workers(await container.get(Settings))
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


async def _work(container: AsyncContainer) -> None:
    await started(container)
    log.info("worker_ready")
    await work(container)
