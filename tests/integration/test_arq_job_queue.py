"""What the contract cannot see: Redis itself, and what goes wrong with it."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from arq.cron import CronJob
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.job_queue.arq import ArqJobQueue, _arqs, _cron, open_arq_job_queue
from adapters.job_queue.retries import Retries
from application.conformance.job_queue import Handler, Round, comes_true, empties, interrupted, job, running
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.job_queue import QueuedJob, Regular
from tests.queue_worker import QueueWorker
from tests.redis_server import RedisServer, redis_server

QUICK = Retries(backoff=0.01)
FOREVER = 3600.0
"""A lease that no test waits for."""


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.fixture
async def queue(server: RedisServer) -> AsyncIterator[ArqJobQueue]:
    async with open_arq_job_queue(server.url, retries=QUICK, lease=FOREVER) as queue:
        yield queue


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """One that the test may kill."""
    with redis_server() as server:
        yield server


async def test_asking_again_and_again_does_not_let_the_queue_grow(queue: ArqJobQueue, server: RedisServer) -> None:
    for _ in range(10):
        for number in range(20):
            await queue.put(job(number))
    assert await queue.waiting() == 20
    assert len(keys(server)) == 20 + 1


async def test_nothing_is_left_of_jobs_that_are_done_or_dropped(queue: ArqJobQueue, server: RedisServer) -> None:
    handler = Handler(failing={job(1): 1000, job(2): 1}, held={job(3)})
    for number in range(10):
        await queue.put(job(number))
    async with running(queue, handler):
        await comes_true(lambda: job(3) in handler.started)
        await queue.put(job(3))
        handler.release.set()
        await comes_true(lambda: handler.done.count(job(3)) == 2)
        await empties(queue)
    assert [key for key in keys(server) if ":health:" not in key] == []


async def test_what_waits_is_ids_and_no_pickle(queue: ArqJobQueue, server: RedisServer) -> None:
    await queue.put(job(7))
    with server.client() as client:
        [name] = [key for key in keys(server) if key.startswith("arq:job:")]
        kept = json.loads(client.get(name))
    assert (kept["a"], kept["k"]) == ([], {})
    assert name.endswith(str(job(7).subject))


async def test_a_run_that_ends_gives_back_at_once_what_it_did(queue: ArqJobQueue) -> None:
    numbers = range(8)
    for number in numbers:
        await queue.put(job(number))
    first = Handler(held={job(number) for number in numbers})
    async with running(queue, first):
        await comes_true(lambda: len(first.started) > 0)
    handler = Handler()
    async with running(queue, handler):
        await comes_true(lambda: len(handler.done) == len(numbers))


async def test_a_run_that_ends_as_it_begins_gives_back_everything(queue: ArqJobQueue) -> None:
    for number in range(8):
        await queue.put(job(number))
    for pause in range(40):
        task = asyncio.create_task(queue.run(Handler(held={job(number) for number in range(8)})))
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    handler = Handler()
    async with running(queue, handler):
        await comes_true(lambda: len(handler.done) == 8)


async def test_a_job_longer_than_the_lease_is_held(server: RedisServer) -> None:
    first, second, clock = Handler(held={job(1)}), Handler(), Round()
    async with open_arq_job_queue(server.url, lease=1.0) as queue, open_arq_job_queue(server.url, lease=1.0) as beside:
        await queue.put(job(1))
        async with running(queue, first, regular=[clock.regular("clock")]):
            await comes_true(lambda: first.started == [job(1)])
            async with running(beside, second):
                until = clock.begun + 4
                await comes_true(lambda: clock.begun >= until)
                assert second.started == []
                first.release.set()
                await empties(queue)
    assert second.started == []


async def test_a_job_past_its_limit_has_failed_and_comes_again(server: RedisServer) -> None:
    async with open_arq_job_queue(server.url, limit=0.2, retries=QUICK) as queue:
        handler = Handler(held={job(1)})
        await queue.put(job(1))
        async with running(queue, handler):
            await comes_true(lambda: len(handler.started) == 3)
            await empties(queue)
    assert handler.started == [job(1)] * 3


async def test_two_installations_on_one_redis_do_not_meet(server: RedisServer) -> None:
    async with (
        open_arq_job_queue(server.url, queue="one") as one,
        open_arq_job_queue(server.url, queue="two") as two,
    ):
        await one.put(job(1))
        await two.put(job(1))
        assert (await one.waiting(), await two.waiting()) == (1, 1)
        handler, round_, other = Handler(), Round(), Round()
        async with (
            running(one, handler, regular=[round_.regular("sweep")]),
            running(two, Handler(held={job(1)}), regular=[other.regular("sweep")]),
        ):
            await comes_true(lambda: handler.done == [job(1)] and round_.begun > 0 and other.begun > 0)
            assert await two.waiting() == 1


async def test_the_worker_is_seen_while_it_runs(queue: ArqJobQueue) -> None:
    assert await queue.last_seen() is None
    async with running(queue, Handler()):
        seen: list[float] = []

        async def look() -> None:
            while not seen:
                ago = await queue.last_seen()
                seen.extend([] if ago is None else [ago])
                await asyncio.sleep(0.01)

        async with asyncio.timeout(20.0):
            await look()
        assert 0.0 <= seen[0] <= 6.0


async def test_workers_of_other_names_are_seen_apart(server: RedisServer) -> None:
    async with (
        open_arq_job_queue(server.url, worker="here") as here,
        open_arq_job_queue(server.url, worker="there") as there,
    ):
        handler = Handler()
        async with running(here, handler):
            await here.put(job(1))
            await comes_true(lambda: handler.done == [job(1)])
            assert await here.last_seen() is not None
            assert await there.last_seen() is None


async def test_a_redis_that_crashes_and_comes_back_empty_is_waited_for(own_server: RedisServer) -> None:
    async with open_arq_job_queue(own_server.url, retries=QUICK, lease=FOREVER) as queue:
        handler, round_ = Handler(held={job(1)}), Round()
        await queue.put(job(1))
        async with running(queue, handler, regular=[round_.regular("sweep")]):
            await comes_true(lambda: handler.started == [job(1)] and round_.begun > 0)
            own_server.kill()
            with pytest.raises(PortUnavailable):
                await queue.put(job(2))
            own_server.start()
            handler.release.set()
            await queue.put(job(1))
            await queue.put(job(2))
            await comes_true(lambda: {job(1), job(2)} <= set(handler.done))
            begun = round_.begun
            await comes_true(lambda: round_.begun > begun)


async def test_a_worker_that_lost_redis_stops_what_it_runs(own_server: RedisServer) -> None:
    async with open_arq_job_queue(own_server.url, lease=FOREVER) as queue:
        stopped = asyncio.Event()

        async def handle(_: QueuedJob) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        await queue.put(job(1))
        async with running(queue, handle):
            await comes_true_of(queue.last_seen)
            own_server.kill()
            async with asyncio.timeout(30.0):
                await stopped.wait()


async def test_a_redis_that_hangs_is_away_and_then_back(own_server: RedisServer) -> None:
    async with open_arq_job_queue(own_server.url, retries=QUICK, lease=3.0) as queue:
        handler = Handler()
        async with running(queue, handler):
            await queue.put(job(1))
            await comes_true(lambda: handler.done == [job(1)])
            with own_server.frozen():
                async with asyncio.timeout(10.0):
                    for asked in (queue.put(job(2)), queue.waiting(), queue.ping(), queue.last_seen()):
                        with pytest.raises(PortUnavailable):
                            await asked
            await queue.put(job(3))
            await comes_true(lambda: job(3) in handler.done)


async def test_what_a_killed_worker_did_is_done_by_one_that_runs_already(server: RedisServer) -> None:
    async with open_arq_job_queue(server.url, lease=2.0) as queue, QueueWorker.running(server.url, lease=2.0) as worker:
        await queue.put(job(1))
        assert await worker.begun() == str(job(1).subject)
        handler = Handler()
        async with running(queue, handler):
            worker.kill()
            await comes_true(lambda: handler.done == [job(1)])
            await empties(queue)


async def test_an_interrupted_job_moves_forward_where_it_is_asked_for_again(queue: ArqJobQueue) -> None:
    await queue.put(job(1))
    await interrupted(queue, job(1))
    await queue.put(job(1))
    handler = Handler()
    async with running(queue, handler):
        await empties(queue)
    assert handler.done == [job(1)]


async def test_asking_again_does_not_make_a_failing_job_a_new_one(server: RedisServer) -> None:
    slow = Retries(backoff=FOREVER, longest_backoff=FOREVER)
    async with open_arq_job_queue(server.url, retries=slow) as queue:
        handler = Handler(failing={job(1): 1000})
        await queue.put(job(1))
        async with running(queue, handler):
            for tries in (1, 2):
                await comes_true(lambda tries=tries: len(handler.started) == tries)
                await queue.put(job(1))
            await empties(queue)
    assert handler.started == [job(1)] * 3


async def test_a_redis_without_memory_is_busy() -> None:
    with redis_server("--maxmemory", "1") as server:
        async with open_arq_job_queue(server.url) as queue:
            with pytest.raises(PortBusy) as refused:
                await queue.put(job(1))
            assert refused.value.port == "job_queue"
            await queue.ping()


@pytest.mark.parametrize("given", ["", ":wrong@"], ids=["no password", "a wrong one"])
async def test_a_wrong_password_is_said_once_and_not_waited_out(given: str, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server("--requirepass", "right") as server:
        async with open_arq_job_queue(server.url.replace("redis://", f"redis://{given}")) as queue:
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: queue.put(job(1)),
                queue.ping,
                lambda: queue.run(Handler()),
                lambda: queue.run(Handler(), regular=[Regular(name="sweep", every=1.0, work=nothing)]),
            ]
            for call in calls:
                with pytest.raises(PortRejected, match="refuses the user name or password"):
                    await call()
            # What asyncio says of a task whose error nobody looked at, it says when the task is thrown away.
            gc.collect()
            assert not [said for said in caplog.records if said.name == "asyncio"]
        async with open_arq_job_queue(server.url.replace("redis://", "redis://:right@")) as queue:
            await done_over(queue)


async def nothing() -> None:
    pass


async def test_a_database_that_is_not_there_is_said(server: RedisServer) -> None:
    async with open_arq_job_queue(server.url.removesuffix("/0") + "/99") as queue:
        with pytest.raises(PortRejected, match="no database of that number"):
            await queue.ping()


async def test_tls_is_a_matter_of_the_address(tmp_path: Path) -> None:
    certificate, key = tmp_path / "redis.crt", tmp_path / "redis.key"
    write_certificate(certificate, key)
    with redis_server(tls=(certificate, key)) as server:
        async with open_arq_job_queue(f"{server.tls_url}?ssl_ca_certs={certificate}") as queue:
            await done_over(queue)
        async with open_arq_job_queue(server.tls_url) as queue:
            with pytest.raises(PortUnavailable):
                await queue.ping()


@pytest.mark.parametrize(
    ("every", "seconds"),
    [
        (1.0, 1),
        (2.0, 2),
        (2.5, 3),
        (7.0, 10),
        (45.0, 60),
        (60.0, 60),
        (61.0, 120),
        (3000.0, 3600),
        (3601.0, 7200),
        (18_000.0, 21_600),
        (86_400.0, 86_400),
        (1e6, 86_400),
    ],
)
def test_intervals_are_those_of_a_clocks_face(every: float, seconds: int) -> None:
    async def nothing(_: str) -> None:
        return

    hand: CronJob = _cron(_arqs(nothing), "hand", every)
    hand.calculate_next(datetime(2026, 1, 1, tzinfo=UTC))
    seen = []
    for _ in range(4):
        assert hand.next_run is not None
        seen.append(hand.next_run)
        hand.calculate_next(hand.next_run)
    assert [after - before for before, after in pairwise(seen)] == [timedelta(seconds=seconds)] * 3


async def done_over(queue: ArqJobQueue) -> None:
    handler = Handler()
    await queue.put(job(1))
    async with running(queue, handler):
        await comes_true(lambda: handler.done == [job(1)])
    await queue.ping()


async def comes_true_of(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20.0):
        while not await ask():  # noqa: ASYNC110 - Redis sets no event of ours
            await asyncio.sleep(0.01)


def keys(server: RedisServer) -> list[str]:
    with server.client() as client:
        return sorted(key.decode() for key in client.scan_iter())


def write_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
