import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs

from adapters.cache.memory import MemoryCache
from adapters.cache.redis import RedisCache, open_redis_cache
from application.ports.cache import Cache
from application.ports.errors import PortRejected, PortUnavailable
from application.ports.ping import Ping
from tests.redis_server import RedisServer, free_port, redis_server


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
async def cache(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache()
        return
    with server.client() as client:
        client.flushall()
    async with open_redis_cache(server.url) as cache:
        yield cache


async def test_what_was_put_is_got(cache: Cache) -> None:
    await cache.put("a", b"\x00\xff", seconds=60.0)
    assert await cache.get("a") == b"\x00\xff"


async def test_nothing_is_none(cache: Cache) -> None:
    assert await cache.get("a") is None


async def test_nothing_in_it_is_not_nothing(cache: Cache) -> None:
    await cache.put("a", b"", seconds=60.0)
    assert await cache.get("a") == b""


async def test_the_last_one_put_is_kept(cache: Cache) -> None:
    await cache.put("a", b"1", seconds=0.001)
    await cache.put("a", b"2", seconds=60.0)
    await asyncio.sleep(0.01)
    assert await cache.get("a") == b"2"


async def test_its_time_is_over_some_day(cache: Cache) -> None:
    await cache.put("a", b"1", seconds=0.05)
    async with asyncio.timeout(20.0):
        while await cache.get("a") is not None:  # noqa: ASYNC110 - what is forgotten sets no event
            await asyncio.sleep(0.005)


async def test_what_was_removed_is_gone_and_the_rest_is_not(cache: Cache) -> None:
    await cache.put("a", b"1", seconds=60.0)
    await cache.put("b", b"2", seconds=60.0)
    await cache.remove("a")
    await cache.remove("a")
    assert (await cache.get("a"), await cache.get("b")) == (None, b"2")


async def test_it_answers_pings(cache: Cache) -> None:
    assert isinstance(cache, Ping)
    await cache.ping()
    assert cache.name == "cache"


async def test_a_full_memory_cache_forgets_what_was_put_longest_ago() -> None:
    cache = MemoryCache(capacity=2)
    for key in ("a", "b", "a", "c"):
        await cache.put(key, key.encode(), seconds=60.0)
    assert [await cache.get(key) for key in "abc"] == [b"a", None, b"c"]


async def test_two_processes_share_a_redis_cache(server: RedisServer) -> None:
    async with open_redis_cache(server.url) as here, open_redis_cache(server.url) as there:
        await here.put("shared", b"1", seconds=60.0)
        assert await there.get("shared") == b"1"
        await there.remove("shared")
        assert await here.get("shared") is None


async def test_two_installations_on_one_redis_do_not_meet(server: RedisServer) -> None:
    async with open_redis_cache(server.url, name="one") as one, open_redis_cache(server.url, name="two") as two:
        await one.put("a", b"1", seconds=60.0)
        assert await two.get("a") is None


async def test_a_redis_that_is_away_is_an_empty_cache() -> None:
    async with open_redis_cache(f"redis://127.0.0.1:{free_port()}") as cache:
        with capture_logs() as lines:
            await all_empty(cache)
    assert [(line["event"], line["port"]) for line in lines] == [("backend_away", "cache")]


async def test_a_redis_that_hangs_is_an_empty_cache_that_nobody_waits_for(own_server: RedisServer) -> None:
    async with open_redis_cache(own_server.url) as cache:
        await cache.put("a", b"1", seconds=60.0)
        with own_server.frozen():
            async with asyncio.timeout(20.0):  # waiting each time would take a minute
                await all_empty(cache)
        await comes_back(cache)
        assert await cache.get("a") == b"1"


async def test_a_redis_that_crashed_is_used_again_when_it_is_back(own_server: RedisServer) -> None:
    async with open_redis_cache(own_server.url) as cache:
        await cache.put("a", b"1", seconds=60.0)
        own_server.kill()
        await all_empty(cache)
        own_server.start()
        await comes_back(cache)


async def test_a_wrong_password_is_said_by_the_ping_and_stops_nobody() -> None:
    with redis_server("--requirepass", "right") as server:
        async with open_redis_cache(server.url) as cache:
            assert await cache.get("a") is None
            await cache.put("a", b"1", seconds=60.0)
            with pytest.raises(PortRejected, match="user name or password"):
                await cache.ping()


async def test_a_redis_without_memory_keeps_nothing() -> None:
    with redis_server("--maxmemory", "1") as server:
        async with open_redis_cache(server.url) as cache:
            await cache.put("a", b"1", seconds=60.0)
            assert await cache.get("a") is None


async def all_empty(cache: RedisCache) -> None:
    for _ in range(100):
        assert await cache.get("a") is None
        await cache.put("b", b"1", seconds=60.0)
    for call in (cache.remove("a"), cache.ping()):
        with pytest.raises(PortUnavailable) as said:
            await call
        assert said.value.port == "cache"


async def comes_back(cache: RedisCache) -> None:
    async with asyncio.timeout(20.0):
        while await cache.get("back") is None:
            await cache.put("back", b"1", seconds=60.0)
            await asyncio.sleep(0.01)
