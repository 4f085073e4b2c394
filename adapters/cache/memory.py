from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, final

from application.ports.cache import Cache
from application.ports.ping import Ping

PORT: Final = "cache"


@final
class MemoryCache(Cache, Ping):
    """Keeps so many values in the process; past that, what was put longest ago goes first."""

    def __init__(self, *, capacity: int = 10_000, clock: Callable[[], float] = monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    @property
    def name(self) -> str:
        return PORT

    async def get(self, key: str) -> bytes | None:
        until, value = self._kept.get(key, (float("-inf"), b""))
        if self._clock() < until:
            return value
        self._kept.pop(key, None)
        return None

    async def put(self, key: str, value: bytes, *, seconds: float) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (self._clock() + seconds, value)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    async def remove(self, key: str) -> None:
        self._kept.pop(key, None)

    async def ping(self) -> None:
        return
