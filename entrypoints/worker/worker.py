"""The background worker: the same container as the service's, without a door."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from dishka import AsyncContainer

from application.ports.job_queue import JobQueue, SignsOfLife
from domain.errors import PortError
from entrypoints.settings import PREFIX, Settings
from entrypoints.wiring.background import IN_PROCESS, work
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import started

log = structlog.get_logger("facepass.worker")


async def work_until_told(container: AsyncContainer) -> None:
    """Do jobs and regular work until SIGINT or SIGTERM; what runs then is given back to the queue.

    Raises `StartError` where the queue is the service's own, or something cannot start.
    """
    _require_shared(await container.get(Settings))
    await started(container)
    working = asyncio.create_task(work(container))
    with _told() as told:
        log.info("worker_ready")
        waiting = asyncio.create_task(told.wait())
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


def _require_shared(settings: Settings) -> None:
    if settings.job_queue.backend == IN_PROCESS:
        raise StartError(
            f"{PREFIX}JOB_QUEUE__BACKEND: {IN_PROCESS} is done by the service itself; "
            "workers need a queue that they share with it, such as arq"
        )


@contextmanager
def _told() -> Iterator[asyncio.Event]:
    """Set an event at the first signal; a second one ends the process as it would have."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def tell(number: int, _: object) -> None:
        loop.call_soon_threadsafe(told.set)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, tell)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
