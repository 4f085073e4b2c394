import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from random import Random

import pytest

from adapters.job_queue.arq import open_arq_job_queue
from adapters.job_queue.in_process import InProcessJobQueue
from adapters.job_queue.memory import MemoryJobQueue
from adapters.job_queue.retries import Retries
from application.conformance.job_queue import Handler, JobQueueContract, comes_true, empties, job, running
from application.ports.errors import PortBusy
from application.ports.job_queue import JobQueue, QueuedJob
from tests.queue_worker import QueueWorker
from tests.redis_server import RedisServer, free_port, redis_server

LEASE = 3.0


class TestInProcessJobQueue(JobQueueContract):
    has_backend = False
    is_shared = False

    @pytest.fixture
    def queue(self) -> JobQueue:
        return InProcessJobQueue(retries=Retries(backoff=0.01, random=NoJitter()))


class TestMemoryJobQueue(JobQueueContract):
    has_backend = False
    is_shared = False

    @pytest.fixture
    def queue(self) -> JobQueue:
        return MemoryJobQueue()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class TestArqJobQueue(JobQueueContract):
    @pytest.fixture
    async def queue(self, server: RedisServer) -> AsyncIterator[JobQueue]:
        with server.client() as client:
            client.flushall()
        async with open_arq_job_queue(server.url, retries=QUICK, lease=LEASE) as queue:
            yield queue

    @pytest.fixture
    async def beside(self, queue: JobQueue, server: RedisServer) -> AsyncIterator[JobQueue]:  # noqa: ARG002 - emptied
        async with open_arq_job_queue(server.url, retries=QUICK, lease=LEASE) as queue_:
            yield queue_

    @pytest.fixture
    async def unavailable(self) -> AsyncIterator[JobQueue]:
        async with open_arq_job_queue(f"redis://127.0.0.1:{free_port()}") as queue:
            yield queue

    @pytest.fixture
    def lose_everything(self, server: RedisServer) -> Callable[[], Awaitable[None]]:
        async def lose_everything() -> None:
            with server.client() as client:
                client.flushall()

        return lose_everything

    @pytest.fixture
    def crash(self, server: RedisServer) -> Callable[[], Awaitable[None]]:
        async def crash() -> None:
            async with QueueWorker.running(server.url, lease=LEASE) as worker:
                await worker.begun()
                worker.kill()

        return crash


class NoJitter(Random):
    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.ranges.append((a, b))
        return 0.0


QUICK = Retries(backoff=0.01, random=NoJitter())


async def test_a_full_queue_is_busy_and_takes_what_waits_already() -> None:
    queue = InProcessJobQueue(capacity=2)
    await queue.put(job(1), delay=60.0)
    await queue.put(job(2))
    with pytest.raises(PortBusy) as refused:
        await queue.put(job(3))
    assert refused.value.port == "job_queue"
    assert refused.value.retry_after > 0.0
    await queue.put(job(1))
    assert await queue.waiting() == 2


async def test_a_full_queue_takes_back_what_it_was_interrupted_at() -> None:
    queue = InProcessJobQueue(capacity=1, concurrency=1)
    await queue.put(job(1))
    handler = Handler(held={job(1)})
    async with running(queue, handler):
        await comes_true(lambda: handler.started == [job(1)])
        await queue.put(job(2))
    assert await queue.waiting() == 2


async def test_no_more_run_at_once_than_allowed() -> None:
    queue = InProcessJobQueue(concurrency=3)
    handler = Handler(held={job(number) for number in range(10)})
    for number in range(10):
        await queue.put(job(number))
    async with running(queue, handler):
        await comes_true(lambda: len(handler.started) == 3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(handler.started) == 3
        handler.release.set()
        await comes_true(lambda: len(handler.done) == 10)


async def test_the_same_job_never_runs_twice_at_once() -> None:
    queue = InProcessJobQueue(concurrency=3)
    handler = Handler(held={job(1)})
    await queue.put(job(1))
    async with running(queue, handler):
        await comes_true(lambda: handler.started == [job(1)])
        await queue.put(job(1))
        await queue.put(job(2))
        await comes_true(lambda: handler.done == [job(2)])
        assert handler.started == [job(1), job(2)]
        handler.release.set()
        await comes_true(lambda: handler.done == [job(2), job(1), job(1)])


async def test_no_job_runs_before_its_time() -> None:
    queue = InProcessJobQueue()
    clock = asyncio.get_running_loop().time
    begun: list[float] = []

    async def handle(_: QueuedJob) -> None:
        begun.append(clock())

    asked = clock()
    await queue.put(job(1), delay=0.2)
    async with running(queue, handle):
        await comes_true(lambda: len(begun) == 1)
    assert begun[0] - asked >= 0.2


async def test_pauses_are_drawn_from_ever_longer_ranges_up_to_a_limit() -> None:
    random = NoJitter()
    queue = InProcessJobQueue(retries=Retries(tries=6, backoff=1.0, longest_backoff=10.0, random=random))
    await queue.put(job(1))
    async with running(queue, Handler(failing={job(1): 1000})):
        await empties(queue)
    assert random.ranges == [(0.0, 2.0), (0.0, 4.0), (0.0, 8.0), (0.0, 10.0), (0.0, 10.0)]


@pytest.mark.parametrize("raised", [asyncio.CancelledError, asyncio.TimeoutError, ExceptionGroup("two", [OSError()])])
async def test_whatever_a_handler_raises_the_workers_live_on(raised: type[BaseException] | BaseException) -> None:
    queue = InProcessJobQueue(concurrency=1, retries=Retries(tries=1))

    async def handle(asked: QueuedJob) -> None:
        if asked == job(1):
            raise raised
        await handler(asked)

    handler = Handler()
    await queue.put(job(1))
    await queue.put(job(2))
    async with running(queue, handle):
        await comes_true(lambda: handler.done == [job(2)])
        await empties(queue)


async def test_a_handler_that_swallows_its_cancellation_does_not_keep_the_queue_running() -> None:
    queue = InProcessJobQueue()
    begun = asyncio.Event()

    async def handle(_: QueuedJob) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    await queue.put(job(1))
    task = asyncio.create_task(queue.run(handle))
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(20.0):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_memory_queue_drains_in_the_order_of_due_times_without_waiting() -> None:
    queue = MemoryJobQueue()
    await queue.put(job(2), delay=3600.0)
    await queue.put(job(3), delay=7200.0)
    await queue.put(job(1))
    assert queue.jobs == [job(1), job(2), job(3)]
    handler = Handler(failing={job(1): 1})
    await queue.drain(handler)
    assert handler.started == [job(1), job(1), job(2), job(3)]
    assert await queue.waiting() == 0


async def test_the_memory_queue_drains_what_jobs_ask_for() -> None:
    queue = MemoryJobQueue()
    done: list[QueuedJob] = []

    def then(following: QueuedJob | None) -> Callable[[QueuedJob], Awaitable[None]]:
        async def handle(asked: QueuedJob) -> None:
            done.append(asked)
            if following is not None and following not in done:
                await queue.put(following)

        return handle

    await queue.put(job(1))
    await queue.drain(then(job(2)))
    assert done == [job(1), job(2)]
