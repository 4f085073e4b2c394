"""Whether workers are alive, as health checks ask it: every few seconds, so it loads no more than the queue."""

from application.ports.job_queue import SignsOfLife
from entrypoints.settings import PREFIX, Settings
from entrypoints.wiring.queues import IN_PROCESS, opened_queue
from entrypoints.wiring.start_error import StartError


async def seen(settings: Settings) -> float | None:
    """Return how many seconds ago a worker of this host gave a sign of life, None where none does.

    Raises `StartError` where the queue has no workers, or none that can be asked about, and `PortUnavailable`.
    """
    require_workers(settings)
    async with opened_queue(settings.job_queue) as opened:
        queue: object = opened
        if not isinstance(queue, SignsOfLife):
            raise StartError(f"the queue {settings.job_queue.backend!r} does not tell whether its workers are alive")
        return await queue.last_seen()


def require_workers(settings: Settings) -> None:
    """Raise `StartError` where the queue is one that the service does itself."""
    if settings.job_queue.backend == IN_PROCESS:
        raise StartError(
            f"{PREFIX}JOB_QUEUE__BACKEND: {IN_PROCESS} is done by the service itself; "
            "workers need a queue that they share with it, such as arq"
        )
