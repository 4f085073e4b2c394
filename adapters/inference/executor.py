"""Where blocking work is done: few threads, a short queue, and a plain no beyond it."""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final, TypeVar, final

from application.ports.errors import PortBusy, PortUnavailable

_T = TypeVar("_T")

_SMOOTHING: Final = 0.1
"""How much the last job counts in the running mean of durations: about the last twenty decide."""
_SHORTEST_RETRY: Final = 1.0
"""Seconds; Retry-After knows whole ones, and 0 would invite a stampede."""


@final
class InferenceExecutor:
    """A bounded pool of threads for decoding and inference, used from one event loop."""

    def __init__(
        self,
        *,
        threads: int | None = None,
        queue_limit: int = 128,
        wait_limit: float = 5.0,
        port: str = "face_embedder",
    ) -> None:
        """Start nothing yet.

        Args:
            threads: None: as many as there are cores.
            queue_limit: jobs that wait at most, those that run not counted.
            wait_limit: seconds that a job waits at most before it starts.
            port: whose name refusals carry.
        """
        self.threads = threads or os.cpu_count() or 1
        self._queue_limit = queue_limit
        self._wait_limit = wait_limit
        self._port = port
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="inference")
        self._in_flight = 0
        self._counting = Lock()
        self._duration = 0.0
        self._closed = False

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do `work` in a thread and return what it returns.

        Cancelled before it starts, it is never done; after, it ends and its result is dropped.

        Raises:
            PortBusy: the queue is full, or `work` did not start within the wait limit.
            PortUnavailable: the executor is closed.
        """
        if self._closed:
            raise PortUnavailable(self._port, "it is being shut down")
        if self._in_flight >= self.threads + self._queue_limit:
            raise self._busy("its queue is full")
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._timed, work)
        with self._counting:
            self._in_flight += 1
        future.add_done_callback(self._ended)
        overdue = _Overdue(future)
        timer = loop.call_later(self._wait_limit, overdue)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if overdue.dropped and not (task and task.cancelling()):
                raise self._busy(f"nothing came free within {self._wait_limit:g} seconds") from None
            raise
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Take no more work and wait for what runs or waits. May be called twice."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown, wait=True)

    @property
    def in_flight(self) -> int:
        """Jobs that run or wait."""
        return self._in_flight

    def _timed(self, work: Callable[[], _T]) -> _T:
        start = time.monotonic()
        try:
            return work()
        finally:
            self._duration += _SMOOTHING * (time.monotonic() - start - self._duration)

    def _ended(self, _: object) -> None:
        # In the thread that did it: the event loop is woken once, with the result, and not for this as well.
        with self._counting:
            self._in_flight -= 1

    def _busy(self, what: str) -> PortBusy:
        expected = self._in_flight / self.threads * self._duration
        return PortBusy(self._port, what, retry_after=max(_SHORTEST_RETRY, expected))


class _Overdue:
    """Drops a job that has not started when it is called."""

    def __init__(self, future: "Future[_T]") -> None:
        self._future = future
        self.dropped = False

    def __call__(self) -> None:
        self.dropped = self._future.cancel()
