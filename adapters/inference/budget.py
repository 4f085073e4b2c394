"""How much may be decoded at the same time."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from application.ports.errors import PortBusy


@final
class DecodeBudget:
    """Megapixels in flight, of one server: what bounds its memory, whatever the number of threads.

    Reservations are granted in the order in which they were asked for, so that a large one does not starve. One that
    is larger than the whole budget is granted when nothing else is in flight. Called from worker threads.
    """

    def __init__(self, megapixels: float = 48.0, *, wait_limit: float = 10.0) -> None:
        """Take the megapixels in flight at most, and the seconds that a reservation waits at most."""
        self._whole = megapixels
        self._free = megapixels
        self._wait_limit = wait_limit
        self._turn = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def reserved(self, megapixels: float) -> Iterator[None]:
        """Wait for the share, hold it, give it back. Raises `PortBusy` after the wait limit."""
        share = min(megapixels, self._whole)
        self._take(share)
        try:
            yield
        finally:
            with self._turn:
                # Nothing in flight is the whole budget again, without what rounding has lost.
                self._free = min(self._free + share, self._whole)
                self._turn.notify_all()

    def _take(self, share: float) -> None:
        deadline = time.monotonic() + self._wait_limit
        ticket = object()
        with self._turn:
            self._queue.append(ticket)
            try:
                # The tolerance covers sums of shares that do not come out even.
                while self._queue[0] is not ticket or share > self._free + 1e-6:
                    left = deadline - time.monotonic()
                    if left <= 0.0 or not self._turn.wait(left):
                        raise PortBusy("face_embedder", "too many large images at once", retry_after=1.0)
                self._free -= share
            finally:
                self._queue.remove(ticket)
                self._turn.notify_all()
