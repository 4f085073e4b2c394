"""The job queue that the settings name, by itself: whoever asks only it loads no models' and no server's libraries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.job_queue.in_process import InProcessJobQueue
from application.ports.job_queue import JobQueue
from domain.job import TIME_LIMIT
from entrypoints.settings import JobQueueSettings
from entrypoints.wiring.adapters import Port, extra_of, require_one_owner, third_party
from entrypoints.wiring.start_error import StartError

IN_PROCESS = "in_process"
"""The queue whose jobs only the process that asked for them can do; all others have workers."""

_MARGIN = 60.0
"""Seconds past a job's own limit after which the queue ends what did not end by itself."""


@asynccontextmanager
async def opened_queue(chosen: JobQueueSettings) -> AsyncIterator[JobQueue]:
    """Open one. Raises `StartError` for a backend that is not there."""
    if chosen.backend == IN_PROCESS:
        require_one_owner(Port.JOB_QUEUE, chosen.backend)
        yield InProcessJobQueue(concurrency=chosen.concurrency)
    elif chosen.backend == "arq":
        async with _opened_arq(chosen) as queue:
            yield queue
    else:
        async with third_party(Port.JOB_QUEUE, chosen.backend)(options=chosen.options) as queue:
            yield queue


@asynccontextmanager
async def _opened_arq(chosen: JobQueueSettings) -> AsyncIterator[JobQueue]:
    with extra_of(Port.JOB_QUEUE, chosen.backend):
        from adapters.job_queue.arq import open_arq_job_queue  # noqa: PLC0415 - its packages are an extra
    if chosen.url is None:
        raise StartError("FACEPASS_JOB_QUEUE__URL: arq needs a Redis")
    async with open_arq_job_queue(
        chosen.url, queue=chosen.name, concurrency=chosen.concurrency, limit=TIME_LIMIT.total_seconds() + _MARGIN
    ) as queue:
        yield queue
