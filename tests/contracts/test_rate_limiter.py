import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs

from adapters.rate_limiter.memory import MemoryRateLimiter
from adapters.rate_limiter.redis import RedisRateLimiter, open_redis_rate_limiter
from application.ports.errors import PortRejected, PortUnavailable
from application.ports.ping import Ping
from application.ports.rate_limiter import Allowance, Rate, RateLimiter
from tests.redis_server import RedisServer, free_port, redis_server

THREE = Rate(count=3, seconds=60)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """One that the test may kill."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[RateLimiter]:
    if request.param == "memory":
        yield MemoryRateLimiter()
        return
    with server.client() as client:
        client.flushall()
    async with open_redis_rate_limiter(server.url) as limiter:
        yield limiter


async def test_so_many_are_allowed_and_no_more(limiter: RateLimiter) -> None:
    taken = [await limiter.take("a", THREE) for _ in range(5)]
    assert [one.allowed for one in taken] == [True, True, True, False, False]
    assert [one.remaining for one in taken] == [2, 1, 0, 0, 0]


async def test_looking_counts_nothing_and_says_what_taking_would(limiter: RateLimiter) -> None:
    for _ in range(3):
        assert (await limiter.look("a", THREE)).allowed
        assert (await limiter.take("a", THREE)).allowed
    assert not (await limiter.look("a", THREE)).allowed


async def test_an_untouched_rate_is_whole(limiter: RateLimiter) -> None:
    assert await limiter.look("a", THREE) == Allowance(allowed=True, remaining=3, reset_after=0.0, retry_after=0.0)


async def test_it_says_when_one_and_when_all_are_allowed_again(limiter: RateLimiter) -> None:
    rate = Rate(count=2, seconds=60)
    first = await limiter.take("a", rate)
    assert first.retry_after == 0.0
    await asyncio.sleep(0.2)
    await limiter.take("a", rate)
    refused = await limiter.take("a", rate)
    assert not refused.allowed
    assert 0.0 < refused.retry_after < refused.reset_after <= 60.0


async def test_the_window_moves(limiter: RateLimiter) -> None:
    rate = Rate(count=2, seconds=1)
    assert (await limiter.take("a", rate)).allowed
    await asyncio.sleep(0.5)
    assert (await limiter.take("a", rate)).allowed
    refused = await limiter.take("a", rate)
    assert not refused.allowed
    await asyncio.sleep(refused.retry_after + 0.01)
    # The first has left the window and the second has not: a fixed window would give two.
    assert (await limiter.take("a", rate)).remaining == 0


async def test_what_was_refused_is_not_counted(limiter: RateLimiter) -> None:
    rate = Rate(count=1, seconds=1)
    await limiter.take("a", rate)
    async with asyncio.timeout(20.0):
        while not (await limiter.take("a", rate)).allowed:  # noqa: ASYNC110 - time sets no event
            await asyncio.sleep(0.01)


async def test_keys_and_rates_are_counted_apart(limiter: RateLimiter) -> None:
    one = Rate(count=1, seconds=60)
    assert (await limiter.take("a", one)).allowed
    assert (await limiter.take("b", one)).allowed
    assert (await limiter.take("a", Rate(count=1, seconds=3600))).allowed
    assert not (await limiter.take("a", one)).allowed


@pytest.mark.parametrize("key", ["2001:db8::1", "a/b", "ключ", "with space", "%s{}*"])
async def test_any_text_is_a_key(limiter: RateLimiter, key: str) -> None:
    one = Rate(count=1, seconds=60)
    assert (await limiter.take(key, one)).allowed
    assert not (await limiter.take(key, one)).allowed


async def test_of_many_at_once_no_more_are_allowed(limiter: RateLimiter) -> None:
    rate = Rate(count=10, seconds=60)
    taken = await asyncio.gather(*(limiter.take("a", rate) for _ in range(50)))
    assert sum(one.allowed for one in taken) == 10


async def test_it_answers_pings(limiter: RateLimiter) -> None:
    assert isinstance(limiter, Ping)
    await limiter.ping()
    assert limiter.name == "rate_limiter"


async def test_a_flood_of_keys_makes_memory_forget_the_oldest() -> None:
    limiter = MemoryRateLimiter(capacity=2)
    one = Rate(count=1, seconds=60)
    for key in "abc":
        await limiter.take(key, one)
    assert [(await limiter.look(key, one)).allowed for key in "abc"] == [True, False, False]


async def test_two_processes_on_one_redis_share_a_limit(server: RedisServer) -> None:
    async with open_redis_rate_limiter(server.url) as here, open_redis_rate_limiter(server.url) as there:
        rate = Rate(count=7, seconds=60)
        taken = await asyncio.gather(*(limiter.take("shared", rate) for limiter in (here, there) for _ in range(20)))
    assert sum(one.allowed for one in taken) == 7


async def test_two_installations_on_one_redis_do_not_meet(server: RedisServer) -> None:
    one = Rate(count=1, seconds=60)
    async with (
        open_redis_rate_limiter(server.url, name="one") as here,
        open_redis_rate_limiter(server.url, name="two") as there,
    ):
        assert (await here.take("apart", one)).allowed
        assert (await there.take("apart", one)).allowed


async def test_while_redis_is_away_the_process_counts_for_itself() -> None:
    async with open_redis_rate_limiter(f"redis://127.0.0.1:{free_port()}") as limiter:
        with capture_logs() as lines:
            await counts_for_itself(limiter)
    assert [(line["event"], line["port"]) for line in lines] == [("backend_away", "rate_limiter")]


async def test_nobody_waits_for_a_redis_that_hangs(own_server: RedisServer) -> None:
    async with open_redis_rate_limiter(own_server.url) as limiter:
        await limiter.take("b", THREE)
        with own_server.frozen():
            async with asyncio.timeout(20.0):  # waiting each time would take a minute
                await counts_for_itself(limiter)


async def test_a_redis_that_crashed_counts_again_when_it_is_back(own_server: RedisServer) -> None:
    async with open_redis_rate_limiter(own_server.url) as limiter, open_redis_rate_limiter(own_server.url) as other:
        await limiter.take("a", THREE)
        own_server.kill()
        await counts_for_itself(limiter)
        own_server.start()
        rate = Rate(count=1, seconds=3600)
        await other.take("back", rate)
        async with asyncio.timeout(20.0):
            while (await limiter.look("back", rate)).allowed:  # noqa: ASYNC110 - Redis sets no event of ours
                await asyncio.sleep(0.01)


async def test_a_wrong_password_is_said_by_the_ping_and_stops_nobody() -> None:
    with redis_server("--requirepass", "right") as server:
        async with open_redis_rate_limiter(server.url) as limiter:
            assert (await limiter.take("a", THREE)).allowed
            with pytest.raises(PortRejected, match="user name or password"):
                await limiter.ping()


async def counts_for_itself(limiter: RedisRateLimiter) -> None:
    rate = Rate(count=50, seconds=3600)
    taken = [await limiter.take("own", rate) for _ in range(100)]
    assert [one.allowed for one in taken] == [True] * 50 + [False] * 50
    with pytest.raises(PortUnavailable) as said:
        await limiter.ping()
    assert said.value.port == "rate_limiter"
