"""What every job queue promises."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import ClassVar
from uuid import UUID

import pytest

from application.conformance.contract import Contract
from application.ports.job_queue import JobKind, JobQueue, QueuedJob
from domain.workspace import WorkspaceId

_PATIENCE = 20.0
"""Seconds after which a condition will not come true any more."""


class JobQueueContract(Contract):
    """Give `queue`: an empty one that repeats failed jobs within a second or so."""

    tries: ClassVar[int] = 3
    """How often the queue runs a job that keeps failing, the first run included."""

    @pytest.fixture
    def queue(self) -> JobQueue:
        """Return the queue."""
        raise NotImplementedError("give your contract test the fixture `queue`")

    async def test_an_empty_queue_has_nothing_waiting(self, queue: JobQueue) -> None:
        assert await queue.waiting() == 0

    async def test_what_was_put_before_the_start_is_done(self, queue: JobQueue) -> None:
        await queue.put(job(1))
        await queue.put(job(2))
        assert await queue.waiting() == 2
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: handler.done == [job(1), job(2)])
            await empties(queue)

    async def test_what_is_put_while_running_is_done(self, queue: JobQueue) -> None:
        handler = Handler()
        async with running(queue, handler):
            await queue.put(job(1))
            await comes_true(lambda: handler.done == [job(1)])
            await queue.put(job(2))
            await comes_true(lambda: handler.done == [job(1), job(2)])
            await empties(queue)

    async def test_jobs_are_told_apart_by_workspace_and_subject(self, queue: JobQueue) -> None:
        asked = {job(1), job(2), job(1, workspace=2)}
        for each in asked:
            await queue.put(each)
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: set(handler.done) == asked)

    async def test_jobs_become_due_in_order(self, queue: JobQueue) -> None:
        await queue.put(job(3), delay=1.0)
        await queue.put(job(2), delay=0.5)
        await queue.put(job(1))
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: handler.done == [job(1), job(2), job(3)])

    async def test_a_delayed_job_waits(self, queue: JobQueue) -> None:
        await queue.put(job(1), delay=3600.0)
        assert await queue.waiting() == 1

    async def test_a_job_that_waits_already_is_done_once(self, queue: JobQueue) -> None:
        await queue.put(job(1))
        await queue.put(job(1))
        await queue.put(job(2))
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: job(2) in handler.done)
            await empties(queue)
        # At most: a queue may know that the same job waits, or leave that to the handler.
        assert 1 <= Counter(handler.done)[job(1)] <= 2

    async def test_a_job_put_again_with_less_delay_comes_sooner(self, queue: JobQueue) -> None:
        await queue.put(job(1), delay=3600.0)
        await queue.put(job(1))
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: job(1) in handler.done)

    async def test_a_job_put_while_the_same_one_runs_is_done_afterwards(self, queue: JobQueue) -> None:
        handler = Handler(held={job(1)})
        await queue.put(job(1))
        async with running(queue, handler):
            await comes_true(lambda: handler.started == [job(1)])
            await queue.put(job(1))
            handler.release.set()
            await comes_true(lambda: handler.done == [job(1), job(1)])

    async def test_a_running_job_counts_as_waiting(self, queue: JobQueue) -> None:
        handler = Handler(held={job(1)})
        await queue.put(job(1))
        async with running(queue, handler):
            await comes_true(lambda: handler.started == [job(1)])
            assert await queue.waiting() == 1
            handler.release.set()
            await empties(queue)

    async def test_a_job_that_fails_once_is_done_at_the_second_try(self, queue: JobQueue) -> None:
        handler = Handler(failing={job(1): 1})
        await queue.put(job(1))
        async with running(queue, handler):
            await comes_true(lambda: handler.done == [job(1)])
            await empties(queue)
        assert handler.started == [job(1)] * 2

    async def test_a_job_that_keeps_failing_is_dropped(self, queue: JobQueue) -> None:
        handler = Handler(failing={job(1): 1000})
        await queue.put(job(1))
        async with running(queue, handler):
            await comes_true(lambda: len(handler.started) >= self.tries)
            await empties(queue)
        assert handler.started == [job(1)] * self.tries

    async def test_a_dropped_job_can_be_asked_for_again(self, queue: JobQueue) -> None:
        handler = Handler(failing={job(1): self.tries})
        await queue.put(job(1))
        async with running(queue, handler):
            await comes_true(lambda: len(handler.started) == self.tries)
            await empties(queue)
            await queue.put(job(1))
            await comes_true(lambda: handler.done == [job(1)])

    async def test_a_failing_job_does_not_stop_others(self, queue: JobQueue) -> None:
        others = [job(number) for number in range(2, 12)]
        handler = Handler(failing={job(1): 1000})
        for each in (job(1), *others):
            await queue.put(each)
        async with running(queue, handler):
            await comes_true(lambda: set(handler.done) == set(others))

    async def test_cancelling_gives_a_running_job_back(self, queue: JobQueue) -> None:
        await queue.put(job(1))
        await interrupted(queue, job(1))
        assert await queue.waiting() == 1
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: handler.done == [job(1)])
            await empties(queue)

    async def test_an_interrupted_run_is_not_counted_as_a_try(self, queue: JobQueue) -> None:
        await queue.put(job(1))
        for _ in range(self.tries + 1):
            await interrupted(queue, job(1))
        failing = Handler(failing={job(1): self.tries - 1})
        async with running(queue, failing):
            await comes_true(lambda: failing.done == [job(1)])

    async def test_many_jobs_are_each_done_at_least_once(self, queue: JobQueue) -> None:
        asked = {job(number) for number in range(200)}
        handler = Handler()
        async with running(queue, handler):
            await asyncio.gather(*(queue.put(each) for each in asked))
            await comes_true(lambda: set(handler.done) == asked)
            await empties(queue)


class Handler:
    """Does jobs as it is told, and remembers them."""

    def __init__(self, *, failing: dict[QueuedJob, int] | None = None, held: set[QueuedJob] | None = None) -> None:
        """Fail each job of `failing` that many times; let those of `held` wait for `release`."""
        self.started: list[QueuedJob] = []
        self.done: list[QueuedJob] = []
        self.release = asyncio.Event()
        self._failing = failing or {}
        self._held = held or set()

    async def __call__(self, job: QueuedJob) -> None:
        self.started.append(job)
        await asyncio.sleep(0)
        if job in self._held:
            await self.release.wait()
        if self.started.count(job) <= self._failing.get(job, 0):
            raise RuntimeError("this job fails")
        self.done.append(job)


def job(subject: int, *, workspace: int = 1) -> QueuedJob:
    """Return a job about something with that number."""
    return QueuedJob(kind=JobKind.RECONCILE, workspace=WorkspaceId(UUID(int=workspace)), subject=UUID(int=subject))


@asynccontextmanager
async def running(queue: JobQueue, handle: Callable[[QueuedJob], Awaitable[None]]) -> AsyncIterator[None]:
    """Run the queue inside the block, and cancel it at its end."""
    task = asyncio.create_task(queue.run(handle))
    try:
        yield
        assert not task.done(), "a queue runs until it is cancelled"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def interrupted(queue: JobQueue, job: QueuedJob) -> None:
    """Run the queue until it has started `job`, and cancel it before that ends."""
    handler = Handler(held={job})
    async with running(queue, handler):
        await comes_true(lambda: job in handler.started)


async def comes_true(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fail where it does not within `_PATIENCE`."""
    async with asyncio.timeout(_PATIENCE):
        while not condition():  # noqa: ASYNC110 - a handler of others sets no event of ours
            await asyncio.sleep(0.005)


async def empties(queue: JobQueue) -> None:
    """Wait until nothing waits or runs any more."""
    async with asyncio.timeout(_PATIENCE):
        while await queue.waiting():  # noqa: ASYNC110 - the port has no event for it
            await asyncio.sleep(0.005)
