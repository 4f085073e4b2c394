import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, TypeVar, final

K = TypeVar("K", bound=Hashable)

_OLDEST: Final = 1.0
_AGEING: Final = 0.5
_KEPT: Final = 1024


@final
@dataclass(frozen=True, slots=True)
class _Count:
    begun: float
    value: int


@final
class Counts(Generic[K]):
    """Numbers that are a second old at most, however many ask, and however long counting takes.

    One count runs at a time for each key. It begins when the kept one is half a second old, so that where many ask
    nobody waits for it.
    """

    def __init__(self, count: Callable[[K], Awaitable[int]]) -> None:
        self._count = count
        self._kept: dict[K, _Count] = {}
        self._running: dict[K, asyncio.Task[int]] = {}

    async def of(self, key: K) -> int:
        """Return the number for `key`. Raises what counting raises."""
        kept = self._kept.get(key)
        age = _OLDEST if kept is None else monotonic() - kept.begun
        if kept is not None and age < _AGEING:
            return kept.value
        running = self._running.get(key) or self._begin(key)
        if kept is not None and age < _OLDEST:
            return kept.value
        # Shielded: others may wait for the same count, and must not be cancelled with this request.
        return await asyncio.shield(running)

    async def aclose(self) -> None:
        """Wait for counts that nobody waits for."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _begin(self, key: K) -> asyncio.Task[int]:
        task = asyncio.ensure_future(self._counted(key))
        self._running[key] = task
        task.add_done_callback(lambda ended: self._ended(key, ended))
        return task

    async def _counted(self, key: K) -> int:
        begun = monotonic()
        value = await self._count(key)
        self._kept[key] = _Count(begun, value)
        if len(self._kept) > _KEPT:
            self._kept = {k: kept for k, kept in self._kept.items() if monotonic() - kept.begun < _OLDEST}
        return value

    def _ended(self, key: K, task: "asyncio.Task[int]") -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            # Asked for, so that a failure nobody waited for is not reported: the next one to ask meets it.
            task.exception()
