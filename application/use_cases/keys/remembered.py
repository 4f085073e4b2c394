import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar, final

from application.ports.notices import Listener, Topic

REMEMBERED_SECONDS = 1.0
"""How long a good credential is taken on trust. A notice that it is no longer good ends it at once, on every node; this
is the limit for a node whose line is cut without a word."""

REMEMBERED_CREDENTIALS = 4096

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@final
class Remembered(Generic[K, V]):
    """What was found about credentials a moment ago, and is still so."""

    def __init__(self, listener: Listener) -> None:
        """Forget all of it at each notice."""
        self._listener = listener
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._notices = 0
        listener.on(Topic.CREDENTIALS, self._forget)

    @property
    def notices(self) -> int:
        """How often it was forgotten so far: to be read before what `keep` takes is looked up."""
        return self._notices

    def get(self, key: K) -> V | None:
        """Return what is known, None where nothing is."""
        known = self._known.get(key)
        return known[1] if known is not None and time.monotonic() < known[0] and self._listener.listening else None

    def keep(self, key: K, value: V, *, since: int) -> None:
        """Remember it, unless a notice has come `since` it was looked up, or none would."""
        if since != self._notices or not self._listener.listening:
            return
        self._known[key] = (time.monotonic() + REMEMBERED_SECONDS, value)
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED_CREDENTIALS:
            self._known.popitem(last=False)

    def _forget(self) -> None:
        self._notices += 1
        self._known.clear()
