"""Whether the event loop goes on turning."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Final

_TRIES: Final = 10


async def assert_not_blocked(work: Callable[[], Awaitable[object]], *, longest: float) -> None:
    """Fail where the loop stood still for more than `longest` seconds during `work`, each time it was tried.

    A busy machine lets any process wait now and then; code that computes or waits in the loop does it every time.
    """
    gaps: list[float] = []
    for _ in range(_TRIES):
        gaps.append(await _longest_gap(work))
        if gaps[-1] <= longest:
            return
    raise AssertionError(f"the event loop stood still for {min(gaps):.3f} seconds or more, {_TRIES} times of {_TRIES}")


async def _longest_gap(work: Callable[[], Awaitable[object]]) -> float:
    loop = asyncio.get_running_loop()
    turns = [loop.time()]

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.001)
            turns.append(loop.time())

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await work()
    watching.cancel()
    turns.append(loop.time())
    return max(later - earlier for earlier, later in pairwise(turns))
