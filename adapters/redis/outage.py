from collections.abc import Callable
from time import monotonic
from typing import Final, final

import structlog

PAUSE: Final = 1.0
"""Seconds for which nobody tries again: with half a second of patience, a third of the time at most is waited."""

QUIET: Final = 60.0
"""Seconds between two lines in the log."""

_log = structlog.get_logger(__name__)


@final
class Outage:
    """Remembers for a moment that a backend is away, so that not every call waits for it."""

    def __init__(self, port: str, *, clock: Callable[[], float] = monotonic) -> None:
        self._port = port
        self._clock = clock
        self._until = float("-inf")
        self._told = float("-inf")

    @property
    def lasts(self) -> bool:
        """Whether it is too early for another try."""
        return self._clock() < self._until

    def begin(self, reason: str) -> None:
        """Let nobody try for `PAUSE` seconds, and say so where that was not said within `QUIET`."""
        now = self._clock()
        self._until = now + PAUSE
        if now - self._told >= QUIET:
            self._told = now
            _log.warning("backend_away", port=self._port, reason=reason)
