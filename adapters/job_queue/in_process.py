"""Jobs done by the process that asked for them, on its own event loop."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Final, final

from adapters.job_queue.regular import is_cancelled, repeat
from adapters.job_queue.retries import Retries
from application.ports.errors import PortBusy
from application.ports.job_queue import JobQueue, QueuedJob, Regular
from application.ports.ping import Ping

PORT: Final = "job_queue"

_RETRIES: Final = Retries()


@dataclass(frozen=True, slots=True)
class _Waiting:
    due: float
    """On the event loop's clock, in seconds."""
    order: int
    failures: int


@final
class InProcessJobQueue(JobQueue, Ping):
    """A bounded queue in memory. It forgets everything with the process, as the port allows.

    A job asked for again while it waits runs once, at the earlier of the two times; asked for while it runs, it
    runs once more afterwards, never twice at once.
    """

    def __init__(
        self,
        *,
        capacity: int = 10_000,
        concurrency: int = 4,
        retries: Retries = _RETRIES,
    ) -> None:
        """Make an empty queue.

        Args:
            capacity: jobs that may wait; past it `put` raises `PortBusy`.
            concurrency: jobs that run at once.
            retries: what happens to a job that fails.
        """
        self._capacity = capacity
        self._concurrency = concurrency
        self._retries = retries
        self._waiting: dict[QueuedJob, _Waiting] = {}
        self._running: set[QueuedJob] = set()
        # May hold outdated entries, which `_waiting` tells apart by their order; jobs that run are not in it.
        self._schedule: list[tuple[float, int, QueuedJob]] = []
        self._order = count()
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        return PORT

    async def put(self, job: QueuedJob, *, delay: float = 0.0) -> None:
        if job not in self._waiting and len(self._waiting) >= self._capacity:
            raise PortBusy(PORT, f"{self._capacity} jobs wait already")
        self._add(job, due=_now() + delay, failures=0)

    async def run(self, handle: Callable[[QueuedJob], Awaitable[None]], *, regular: Sequence[Regular] = ()) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._concurrency):
                tasks.create_task(self._work(handle))
            for piece in regular:
                tasks.create_task(repeat(piece))

    async def waiting(self) -> int:
        return len(self._waiting) + len(self._running)

    async def ping(self) -> None:
        return

    async def _work(self, handle: Callable[[QueuedJob], Awaitable[None]]) -> None:
        while not is_cancelled():  # a handler may have swallowed it
            job, failures = await self._next()
            try:
                await handle(job)
            except asyncio.CancelledError as error:
                if is_cancelled():
                    self._finish(job)
                    self._add(job, due=_now(), failures=failures)
                    raise
                # The handler gave up something of its own; nobody asked this worker to stop.
                self._failed(job, failures + 1, error)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, the others' jobs go on
                self._failed(job, failures + 1, error)
            else:
                self._finish(job)

    async def _next(self) -> tuple[QueuedJob, int]:
        """Wait for a job that is due, and count it among the running ones."""
        while True:
            now = _now()
            while self._schedule and not self._current(self._schedule[0]):
                heapq.heappop(self._schedule)
            if self._schedule and self._schedule[0][0] <= now:
                job = heapq.heappop(self._schedule)[2]
                self._running.add(job)
                return job, self._waiting.pop(job).failures
            pause = self._schedule[0][0] - now if self._schedule else None
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _current(self, entry: tuple[float, int, QueuedJob]) -> bool:
        waiting = self._waiting.get(entry[2])
        return waiting is not None and waiting.order == entry[1]

    def _add(self, job: QueuedJob, *, due: float, failures: int) -> None:
        before = self._waiting.get(job)
        if before is not None:
            # Asking again does not make a failing job a new one: whoever sweeps every second would never let it go.
            failures = max(failures, before.failures)
            if before.due <= due:
                self._waiting[job] = replace(before, failures=failures)
                return
        self._waiting[job] = _Waiting(due, next(self._order), failures)
        self._plan(job)

    def _plan(self, job: QueuedJob) -> None:
        if job not in self._running:
            waiting = self._waiting[job]
            heapq.heappush(self._schedule, (waiting.due, waiting.order, job))
            self._changed.set()

    def _finish(self, job: QueuedJob) -> None:
        self._running.discard(job)
        if job in self._waiting:
            self._plan(job)

    def _failed(self, job: QueuedJob, failures: int, error: BaseException) -> None:
        pause = self._retries.pause(job, error, failures=failures)
        self._finish(job)
        if pause is not None:
            self._add(job, due=_now() + pause, failures=failures)


def _now() -> float:
    return asyncio.get_running_loop().time()
