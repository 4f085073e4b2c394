import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

from redis.asyncio import Redis

from adapters.redis.errors import translated
from adapters.redis.outage import Outage
from application.ports.cache import Cache
from application.ports.ping import Ping
from domain.errors import PortError

PORT: Final = "cache"

_PATIENCE: Final = 0.5
"""Seconds that anybody waits, as the port promises."""
_PING_PATIENCE: Final = 1.5


@final
class RedisCache(Cache, Ping):
    """Values as plain keys that Redis forgets by itself, under `name`, so that installations can share a Redis."""

    def __init__(self, client: Redis, *, name: str = "facepass") -> None:
        self._client = client
        self._name = name
        self._outage = Outage(PORT)

    @property
    def name(self) -> str:
        return PORT

    async def get(self, key: str) -> bytes | None:
        if self._outage.lasts:
            return None
        try:
            with translated(PORT):
                async with asyncio.timeout(_PATIENCE):
                    value: bytes | None = await self._client.get(self._key(key))
        except PortError as error:
            self._outage.begin(error.message)
            return None
        return value

    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        if self._outage.lasts:
            return
        try:
            with translated(PORT):
                async with asyncio.timeout(_PATIENCE):
                    await self._client.set(self._key(key), value, px=max(1, round(seconds * 1000)))
        except PortError as error:
            self._outage.begin(error.message)

    async def remove(self, key: str) -> None:
        # Tried even where Redis was just away: what is not removed is found again when it is back.
        with translated(PORT):
            async with asyncio.timeout(_PATIENCE):
                await self._client.delete(self._key(key))

    async def ping(self) -> None:
        with translated(PORT):
            async with asyncio.timeout(_PING_PATIENCE):
                await self._client.ping()

    def _key(self, key: str) -> str:
        return f"{self._name}:cache:{key}"


@asynccontextmanager
async def open_redis_cache(url: str, *, name: str = "facepass") -> AsyncIterator[RedisCache]:
    """Open the cache at `redis://`, `rediss://` (TLS) or `unix://`, user and password in the address."""
    client = Redis.from_url(url)
    try:
        yield RedisCache(client, name=name)
    finally:
        await client.aclose()
