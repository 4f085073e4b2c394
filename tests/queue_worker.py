"""A worker in a process of its own, which begins jobs and never ends them: to be killed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from adapters.job_queue.arq import open_arq_job_queue
from application.ports.job_queue import QueuedJob

CHECKOUT = Path(__file__).parents[1]


class QueueWorker:
    """Such a process, seen from the test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def running(cls, url: str, *, lease: float) -> AsyncIterator[Self]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, url, str(lease), cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
        )
        worker = cls(process)
        try:
            yield worker
        finally:
            if process.returncode is None:
                worker.kill()
            await process.communicate()

    async def begun(self) -> str:
        """Wait until it has begun a job, and return its subject."""
        assert self._process.stdout is not None
        async with asyncio.timeout(60.0):
            line = await self._process.stdout.readline()
        assert line, "the worker ended"
        return line.decode().strip()

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


async def main(url: str, lease: str) -> None:
    async def handle(job: QueuedJob) -> None:
        print(job.subject, flush=True)
        await asyncio.Event().wait()

    async with open_arq_job_queue(url, lease=float(lease)) as queue:
        await queue.run(handle)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
