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
    dispensable: frozenset[str] = frozenset()
    """Ports whose work is put off or done in another way while they are away."""

    @property
    def ready(self) -> bool:
        """Whether all that calls cannot do without are there."""
        return all(said == OK for port, said in self.checks.items() if port not in self.dispensable)

    @property
    def degraded(self) -> bool:
        """Whether one of the others is not."""
        return self.ready and any(said != OK for said in self.checks.values())


@final
@dataclass(slots=True, kw_only=True)
class CheckReadiness:
    """Ask every backend whether it is there, the face model by a real inference.

    Without queue, cache and limits a node serves on: the record holds what is to be done, a cache that is away is an
    empty one, and limits are counted in the process. So none of these takes nodes out, which would do more harm.
    Busy is ready: a node under load must not be taken out, or the next one follows.
    """

    pings: Sequence[Ping]
    dispensable: Sequence[Ping] = ()
    _last: Readiness | None = field(default=None, init=False)
    _until: float = field(default=0.0, init=False)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def __call__(self) -> Readiness:
        async with self._asking:
            if self._last is None or time.monotonic() >= self._until:
                everyone = (*self.pings, *self.dispensable)
                said = await asyncio.gather(*(_asked(ping) for ping in everyone))
                self._last = Readiness(
                    dict(zip((ping.name for ping in everyone), said, strict=True)),
                    frozenset(ping.name for ping in self.dispensable),
                )
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
    except Exception as error:  # noqa: BLE001 - a third party's adapter may raise anything
        return f"error: {type(error).__name__}"
    return OK
