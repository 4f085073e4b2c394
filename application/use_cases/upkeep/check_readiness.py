import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from application.ports.errors import PortBusy
from application.ports.ping import Ping
from domain.errors import FacepassError

REMEMBERED_SECONDS = 2.0
"""How long a result is taken on trust: a balancer that asks every second runs no inference every second."""

LONGEST_PING = 3.0
"""Seconds after which a backend that does not answer is not there."""

OK = "ok"


@dataclass(frozen=True, slots=True)
class Readiness:
    """What each backend said."""

    checks: dict[str, str]
    """By port: `ok`, or what is wrong."""

    @property
    def ready(self) -> bool:
        """Whether all of them are there."""
        return all(said == OK for said in self.checks.values())


@final
@dataclass(slots=True, kw_only=True)
class CheckReadiness:
    """Ask every backend whether it is there, the face model by a real inference.

    Busy is ready: a node under load must not be taken out, or the next one follows.
    """

    pings: Sequence[Ping]
    _last: Readiness | None = field(default=None, init=False)
    _until: float = field(default=0.0, init=False)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def __call__(self) -> Readiness:
        async with self._asking:
            if self._last is None or time.monotonic() >= self._until:
                said = await asyncio.gather(*(_asked(ping) for ping in self.pings))
                self._last = Readiness(dict(zip((ping.name for ping in self.pings), said, strict=True)))
                self._until = time.monotonic() + REMEMBERED_SECONDS
            return self._last


async def _asked(ping: Ping) -> str:
    try:
        async with asyncio.timeout(LONGEST_PING):
            await ping.ping()
    except PortBusy:
        return OK
    except TimeoutError:
        return f"no answer within {LONGEST_PING:g} seconds"
    except FacepassError as error:
        return f"{error.code}: {error.message}"
    return OK
