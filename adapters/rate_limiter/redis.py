import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import time
from typing import Final, final

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from adapters.rate_limiter.memory import MemoryRateLimiter
from adapters.redis.errors import translated
from adapters.redis.outage import Outage
from application.ports.ping import Ping
from application.ports.rate_limiter import Allowance, Rate, RateLimiter
from domain.errors import PortError

PORT: Final = "rate_limiter"

_PATIENCE: Final = 0.5
"""Seconds that a call waits for Redis before it is counted in the process."""
_PING_PATIENCE: Final = 1.5


@final
class RedisRateLimiter(RateLimiter, Ping):
    """The moving window of the library `limits`: a list of times a key, which one script reads and adds to.

    The times are those of the processes' clocks, so clocks that differ by a second move a window by a second.
    While Redis is away the process counts for itself, from nothing.
    """

    def __init__(self, client: Redis, *, name: str = "facepass") -> None:
        self._client = client
        self._storage = RedisStorage(
            "redis://",
            implementation="redispy",
            key_prefix=f"{name}:rate",
            connection_pool=client.connection_pool,  # type: ignore[arg-type]  # the library's own documented option
        )
        self._window = MovingWindowRateLimiter(self._storage)
        self._newest = client.register_script("return redis.call('LINDEX', KEYS[1], 0)")
        self._own = MemoryRateLimiter()
        self._outage = Outage(PORT)

    @property
    def name(self) -> str:
        return PORT

    async def take(self, key: str, rate: Rate) -> Allowance:
        async def counted() -> Allowance:
            allowed = await self._window.hit(_item(rate), key)
            return await self._allowance(key, rate, allowed=allowed)

        return await self._counted(counted) or await self._own.take(key, rate)

    async def look(self, key: str, rate: Rate) -> Allowance:
        async def counted() -> Allowance:
            return await self._allowance(key, rate, allowed=None)

        return await self._counted(counted) or await self._own.look(key, rate)

    async def ping(self) -> None:
        with translated(PORT):
            async with asyncio.timeout(_PING_PATIENCE):
                await self._client.ping()

    async def _counted(self, ask: Callable[[], Awaitable[Allowance]]) -> Allowance | None:
        """Return what Redis says, None where it is away."""
        if self._outage.lasts:
            return None
        try:
            with translated(PORT):
                async with asyncio.timeout(_PATIENCE):
                    return await ask()
        except PortError as error:
            self._outage.begin(error.message)
            return None

    async def _allowance(self, key: str, rate: Rate, *, allowed: bool | None) -> Allowance:
        item = _item(rate)
        window = await self._window.get_window_stats(item, key)
        # The library tells when the oldest one leaves the window, not when the last one does.
        newest = await self._newest(keys=[self._storage.bridge.prefixed_key(item.key_for(key))])
        now = time()
        free = window.remaining > 0
        return Allowance(
            allowed=free if allowed is None else allowed,
            remaining=window.remaining,
            reset_after=max(0.0, float(newest) + rate.seconds - now) if newest is not None else 0.0,
            retry_after=0.0 if free else max(0.0, window.reset_time - now),
        )


@asynccontextmanager
async def open_redis_rate_limiter(url: str, *, name: str = "facepass") -> AsyncIterator[RedisRateLimiter]:
    """Open the limiter at `redis://`, `rediss://` (TLS) or `unix://`, user and password in the address."""
    client = Redis.from_url(url)
    try:
        yield RedisRateLimiter(client, name=name)
    finally:
        await client.aclose()


def _item(rate: Rate) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(rate.count, rate.seconds)
