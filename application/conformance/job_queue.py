"""What every job queue promises."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import ClassVar
from uuid import UUID

import pytest

from application.conformance.contract import Contract
from application.ports.errors import PortUnavailable
from application.ports.job_queue import JobKind, JobQueue, QueuedJob, Regular
from application.ports.ping import Ping
from domain.workspace import WorkspaceId

_PATIENCE = 20.0
"""Seconds after which a condition will not come true any more."""


class JobQueueContract(Contract):
    """Give `queue`, and what the capabilities that it declares need.

    The queue is an empty one that repeats failed jobs within a second or so, and brings the jobs of a worker that
    died within ten.
    """

    tries: ClassVar[int] = 3
    """How often the queue runs a job that keeps failing, the first run included."""

    has_backend: ClassVar[bool] = True
    """Whether the queue stands in a server that can be away. Then give `unavailable` and `lose_everything`."""

    is_shared: ClassVar[bool] = True
    """Whether several processes can run the same queue, and it outlives each. Then give `beside` and `crash`."""

    @pytest.fixture
    def queue(self) -> JobQueue:
        """Return the queue."""
        raise NotImplementedError("give your contract test the fixture `queue`")

    @pytest.fixture
    def unavailable(self) -> JobQueue:
        """Return a queue that was opened, and whose backend has gone away since."""
        if self.has_backend:
            raise NotImplementedError(
                "give your contract test the fixture `unavailable`, or set `has_backend` to False"
            )
        pytest.skip("this queue has nothing behind it that could be away")

    @pytest.fixture
    def lose_everything(self) -> Callable[[], Awaitable[None]]:
        """Return a function that empties the backend of `queue` past the port, as a crash without a disk does."""
        if self.has_backend:
            raise NotImplementedError(
                "give your contract test the fixture `lose_everything`, or set `has_backend` to False"
            )
        pytest.skip("this queue has nothing behind it that could lose anything")

    @pytest.fixture
    def beside(self, queue: JobQueue) -> JobQueue:
        """Return the queue once more, opened for itself, as another process has it."""
        if self.is_shared:
            raise NotImplementedError("give your contract test the fixture `beside`, or set `is_shared` to False")
        pytest.skip(f"{type(queue).__name__} is of one process")

    @pytest.fixture
    def crash(self) -> Callable[[], Awaitable[None]]:
        """Return a function that runs `queue` until a job has begun, and ends that run without any cleaning up.

        The job does not end by itself. A process that is killed (SIGKILL) is the honest way.
        """
        if self.is_shared:
            raise NotImplementedError("give your contract test the fixture `crash`, or set `is_shared` to False")
        pytest.skip("this queue forgets everything with its process")

    async def test_an_empty_queue_has_nothing_waiting(self, queue: JobQueue) -> None:
        assert await queue.waiting() == 0

    async def test_what_was_put_before_the_start_is_done(self, queue: JobQueue) -> None:
        await queue.put(job(1))
        await queue.put(job(2))
        assert await queue.waiting() == 2
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: set(handler.done) == {job(1), job(2)})
            await empties(queue)
        assert len(handler.done) == 2

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

    async def test_regular_work_comes_round(self, queue: JobQueue) -> None:
        round_ = Round()
        async with running(queue, Handler(), regular=[round_.regular("sweep")]):
            await comes_true(lambda: round_.begun >= 3)

    async def test_regular_work_that_fails_comes_round_and_stops_nothing(self, queue: JobQueue) -> None:
        failing, other = Round(fails=True), Round()
        handler = Handler()
        async with running(queue, handler, regular=[failing.regular("failing"), other.regular("other")]):
            await comes_true(lambda: failing.begun >= 2 and other.begun >= 2)
            await queue.put(job(1))
            await comes_true(lambda: handler.done == [job(1)])

    async def test_regular_work_waits_behind_no_job(self, queue: JobQueue) -> None:
        held = {job(number) for number in range(100)}
        handler = Handler(held=held)
        for each in held:
            await queue.put(each)
        round_ = Round()
        async with running(queue, handler, regular=[round_.regular("sweep")]):
            await comes_true(lambda: len(handler.started) > 0)
            before = round_.begun
            await comes_true(lambda: round_.begun > before)

    async def test_regular_work_does_not_count_as_waiting(self, queue: JobQueue) -> None:
        round_ = Round(held=True)
        async with running(queue, Handler(), regular=[round_.regular("sweep")]):
            await comes_true(lambda: round_.begun > 0)
            assert await queue.waiting() == 0

    async def test_regular_work_ends_with_the_run(self, queue: JobQueue) -> None:
        round_ = Round(held=True)
        async with running(queue, Handler(), regular=[round_.regular("sweep")]):
            await comes_true(lambda: round_.at_once == 1)
        assert round_.at_once == 0

    async def test_work_that_takes_longer_than_its_interval_is_not_begun_twice(self, queue: JobQueue) -> None:
        round_ = Round(takes=1.5)
        async with running(queue, Handler(), regular=[round_.regular("slow")]):
            await comes_true(lambda: round_.begun >= 3)
        assert round_.most_at_once == 1

    async def test_of_two_runners_one_at_a_time_does_regular_work(self, queue: JobQueue, beside: JobQueue) -> None:
        round_ = Round(takes=1.5)
        regular = [round_.regular("slow")]
        async with running(queue, Handler(), regular=regular), running(beside, Handler(), regular=regular):
            await comes_true(lambda: round_.begun >= 3)
        assert round_.most_at_once == 1

    async def test_regular_work_of_a_runner_that_ended_is_taken_over(self, queue: JobQueue, beside: JobQueue) -> None:
        first, second = Round(held=True), Round()
        async with running(queue, Handler(), regular=[first.regular("sweep")]):
            await comes_true(lambda: first.begun == 1)
        async with running(beside, Handler(), regular=[second.regular("sweep")]):
            await comes_true(lambda: second.begun >= 1)

    async def test_two_runners_share_the_work(self, queue: JobQueue, beside: JobQueue) -> None:
        asked = [job(number) for number in range(50)]
        handler = Handler()
        async with running(queue, handler), running(beside, handler):
            for each in asked * 3:
                await queue.put(each)
            await comes_true(lambda: set(handler.done) == set(asked))
            await empties(beside)
        assert handler.twice_at_once == []

    async def test_the_same_job_never_runs_twice_at_once(self, queue: JobQueue, beside: JobQueue) -> None:
        first, second = Handler(held={job(1)}), Handler()
        await queue.put(job(1))
        async with running(queue, first):
            await comes_true(lambda: first.started == [job(1)])
            async with running(beside, second):
                await beside.put(job(1))
                await beside.put(job(2))
                await comes_true(lambda: job(2) in [*first.done, *second.done])
                assert job(1) not in second.started
                first.release.set()
                await comes_true(lambda: len(first.done) + len(second.done) == 3)

    async def test_what_one_runner_gives_back_another_does(self, queue: JobQueue, beside: JobQueue) -> None:
        await queue.put(job(1))
        handler = Handler()
        await interrupted(queue, job(1))
        async with running(beside, handler):
            await comes_true(lambda: handler.done == [job(1)])

    async def test_the_job_of_a_worker_that_died_comes_again(
        self, queue: JobQueue, crash: Callable[[], Awaitable[None]]
    ) -> None:
        await queue.put(job(1))
        await crash()
        assert await queue.waiting() == 1
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: handler.done == [job(1)])
            await empties(queue)

    async def test_a_crash_is_not_counted_as_a_try(self, queue: JobQueue, crash: Callable[[], Awaitable[None]]) -> None:
        await queue.put(job(1))
        await crash()
        failing = Handler(failing={job(1): self.tries - 1})
        async with running(queue, failing):
            await comes_true(lambda: failing.done == [job(1)])

    async def test_what_was_asked_for_while_a_worker_died_is_not_lost(
        self, queue: JobQueue, crash: Callable[[], Awaitable[None]]
    ) -> None:
        await queue.put(job(1))
        await crash()
        await queue.put(job(1))
        await queue.put(job(2))
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: set(handler.done) == {job(1), job(2)})
            await empties(queue)

    async def test_a_backend_that_is_away_is_said_to_be(self, unavailable: JobQueue) -> None:
        assert isinstance(unavailable, Ping)
        async with asyncio.timeout(_PATIENCE):
            said = await asyncio.gather(
                unavailable.put(job(1)), unavailable.waiting(), unavailable.ping(), return_exceptions=True
            )
        assert [type(answer) for answer in said] == [PortUnavailable] * len(said)
        assert {answer.port for answer in said if isinstance(answer, PortUnavailable)} == {"job_queue"}

    async def test_run_waits_for_a_backend_that_is_away(self, unavailable: JobQueue) -> None:
        async with running(unavailable, Handler(), regular=[Round().regular("sweep")]):
            for _ in range(3):
                with pytest.raises(PortUnavailable):
                    await unavailable.put(job(1))

    async def test_a_backend_that_lost_everything_takes_what_is_put_then(
        self, queue: JobQueue, lose_everything: Callable[[], Awaitable[None]]
    ) -> None:
        await queue.put(job(1))
        await queue.put(job(2))
        await lose_everything()
        assert await queue.waiting() == 0
        await queue.put(job(1))
        handler = Handler()
        async with running(queue, handler):
            await comes_true(lambda: handler.done == [job(1)])
            await empties(queue)

    async def test_a_backend_may_lose_everything_while_jobs_run(
        self, queue: JobQueue, lose_everything: Callable[[], Awaitable[None]]
    ) -> None:
        handler = Handler(held={job(1)})
        round_ = Round()
        await queue.put(job(1))
        async with running(queue, handler, regular=[round_.regular("sweep")]):
            await comes_true(lambda: handler.started == [job(1)])
            await lose_everything()
            await queue.put(job(2))
            await comes_true(lambda: job(2) in handler.done)
            handler.release.set()
            await comes_true(lambda: job(1) in handler.done)
            await queue.put(job(1))
            await comes_true(lambda: handler.done.count(job(1)) == 2)
            before = round_.begun
            await comes_true(lambda: round_.begun > before)

    async def test_what_is_asked_for_again_after_a_loss_outlives_the_run_that_went_on(
        self, queue: JobQueue, lose_everything: Callable[[], Awaitable[None]]
    ) -> None:
        handler = Handler(held={job(1)})
        await queue.put(job(1))
        async with running(queue, handler):
            await comes_true(lambda: handler.started == [job(1)])
            await lose_everything()
            await queue.put(job(1))
            await queue.put(job(2))
            await comes_true(lambda: job(2) in handler.done)
            handler.release.set()
            await comes_true(lambda: handler.done.count(job(1)) == 2)
            assert handler.twice_at_once == [], "whoever runs a job knows that, whatever was lost"
            await queue.put(job(3))
            await comes_true(lambda: job(3) in handler.done)
            await empties(queue)


class Handler:
    """Does jobs as it is told, and remembers them."""

    def __init__(self, *, failing: dict[QueuedJob, int] | None = None, held: set[QueuedJob] | None = None) -> None:
        """Fail each job of `failing` that many times; let those of `held` wait for `release`."""
        self.started: list[QueuedJob] = []
        self.done: list[QueuedJob] = []
        self.twice_at_once: list[QueuedJob] = []
        self.release = asyncio.Event()
        self._running: set[QueuedJob] = set()
        self._failing = failing or {}
        self._held = held or set()

    async def __call__(self, job: QueuedJob) -> None:
        self.started.append(job)
        if job in self._running:
            self.twice_at_once.append(job)
        self._running.add(job)
        try:
            await asyncio.sleep(0)
            if job in self._held:
                await self.release.wait()
        finally:
            self._running.discard(job)
        if self.started.count(job) <= self._failing.get(job, 0):
            raise RuntimeError("this job fails")
        self.done.append(job)


class Round:
    """Work that comes round every second, and remembers."""

    def __init__(self, *, takes: float = 0.0, held: bool = False, fails: bool = False) -> None:
        """Take so many seconds each time, or for ever (`held`), or fail."""
        self.begun = 0
        self.at_once = 0
        self.most_at_once = 0
        self._takes = takes
        self._held = held
        self._fails = fails

    def regular(self, name: str) -> Regular:
        """Return it under a name."""
        return Regular(name=name, every=1.0, work=self._work)

    async def _work(self) -> None:
        self.begun += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (asyncio.Event().wait() if self._held else asyncio.sleep(self._takes))
        finally:
            self.at_once -= 1
        if self._fails:
            raise RuntimeError("this work fails")


def job(subject: int, *, workspace: int = 1) -> QueuedJob:
    """Return a job about something with that number."""
    return QueuedJob(kind=JobKind.RECONCILE, workspace=WorkspaceId(UUID(int=workspace)), subject=UUID(int=subject))


@asynccontextmanager
async def running(
    queue: JobQueue, handle: Callable[[QueuedJob], Awaitable[None]], *, regular: Sequence[Regular] = ()
) -> AsyncIterator[None]:
    """Run the queue inside the block, and cancel it at its end."""
    task = asyncio.create_task(queue.run(handle, regular=regular))
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
