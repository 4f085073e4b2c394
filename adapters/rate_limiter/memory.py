from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, final

from application.ports.ping import Ping
from application.ports.rate_limiter import Allowance, Rate, RateLimiter

PORT: Final = "rate_limiter"


@final
class MemoryRateLimiter(RateLimiter, Ping):
    """Remembers in the process when each of the last ones was taken.

    Past `capacity` keys, the one asked about longest ago is forgotten, so that a flood of addresses cannot fill the
    memory.
    """

    def __init__(self, *, capacity: int = 100_000, clock: Callable[[], float] = monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._taken: OrderedDict[tuple[str, Rate], deque[float]] = OrderedDict()

    @property
    def name(self) -> str:
        return PORT

    async def take(self, key: str, rate: Rate) -> Allowance:
        now = self._clock()
        taken = self._within(key, rate, now)
        allowed = len(taken) < rate.count
        if allowed:
            taken.append(now)
            self._taken[key, rate] = taken
            if len(self._taken) > self._capacity:
                self._taken.popitem(last=False)
        return _allowance(taken, rate, now, allowed=allowed)

    async def look(self, key: str, rate: Rate) -> Allowance:
        now = self._clock()
        taken = self._within(key, rate, now)
        return _allowance(taken, rate, now, allowed=len(taken) < rate.count)

    async def ping(self) -> None:
        return

    def _within(self, key: str, rate: Rate, now: float) -> deque[float]:
        """Return when those that still count were taken, oldest first, and forget the others."""
        if (key, rate) not in self._taken:
            return deque()
        self._taken.move_to_end((key, rate))
        taken = self._taken[key, rate]
        while taken and taken[0] <= now - rate.seconds:
            taken.popleft()
        if not taken:
            del self._taken[key, rate]
        return taken


def _allowance(taken: Sequence[float], rate: Rate, now: float, *, allowed: bool) -> Allowance:
    remaining = rate.count - len(taken)
    return Allowance(
        allowed=allowed,
        remaining=remaining,
        reset_after=taken[-1] + rate.seconds - now if taken else 0.0,
        retry_after=0.0 if remaining > 0 or not taken else taken[0] + rate.seconds - now,
    )
