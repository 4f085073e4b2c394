import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from adapters.job_queue.regular import repeat
from application.ports.job_queue import JobQueue, QueuedJob, Regular
from application.ports.ping import Ping

TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class _Waiting:
    due: float
    job: QueuedJob
    failures: int = 0


@final
class MemoryJobQueue(JobQueue, Ping):
    """For tests: one job at a time, in the order of due times, without ever waiting for one of them.

    Its clock is its own: it stands still while jobs run and jumps to the next due time. A failed job is due again
    a second later, behind whatever is due now; after `TRIES` runs it is dropped. Regular work comes round in real time.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._jobs: list[_Waiting] = []
        self._running: QueuedJob | None = None
        self._added = asyncio.Event()

    @property
    def name(self) -> str:
        return "job_queue"

    @property
    def jobs(self) -> list[QueuedJob]:
        """What waits, in the order in which it will run."""
        return [waiting.job for waiting in self._jobs]

    async def put(self, job: QueuedJob, *, delay: float = 0.0) -> None:
        self._add(_Waiting(self._now + delay, job))

    async def run(self, handle: Callable[[QueuedJob], Awaitable[None]], *, regular: Sequence[Regular] = ()) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_draining(handle))
            for piece in regular:
                tasks.create_task(repeat(piece))

    async def drain(self, handle: Callable[[QueuedJob], Awaitable[None]]) -> None:
        """Do all that waits, delayed jobs and repeated ones too, and return."""
        while self._jobs:
            await self._do(self._jobs.pop(0), handle)
            await asyncio.sleep(0)

    async def waiting(self) -> int:
        return len(self._jobs) + (self._running is not None)

    async def ping(self) -> None:
        return

    async def _keep_draining(self, handle: Callable[[QueuedJob], Awaitable[None]]) -> None:
        while True:
            await self.drain(handle)
            self._added.clear()
            await self._added.wait()

    async def _do(self, waiting: _Waiting, handle: Callable[[QueuedJob], Awaitable[None]]) -> None:
        self._now = max(self._now, waiting.due)
        self._running = waiting.job
        try:
            await handle(waiting.job)
        except Exception:  # noqa: BLE001 - whatever a handler raises, the others' jobs go on
            if waiting.failures + 1 < TRIES:
                self._add(_Waiting(self._now + 1.0, waiting.job, waiting.failures + 1))
        except BaseException:
            self._add(waiting)
            raise
        finally:
            self._running = None

    def _add(self, added: _Waiting) -> None:
        before = next((waiting for waiting in self._jobs if waiting.job == added.job), None)
        if before is not None:
            if before.due <= added.due:
                return
            self._jobs.remove(before)
        behind = sum(waiting.due <= added.due for waiting in self._jobs)
        self._jobs.insert(behind, added)
        self._added.set()
