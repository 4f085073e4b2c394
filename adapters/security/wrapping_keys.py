import time
from collections.abc import Mapping
from typing import Final, final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from application.ports.errors import PortBusy, PortUnavailable
from application.ports.key_ring import KNOWN_WITHIN, SETTLED_AFTER
from domain.errors import CannotOpen

PORT: Final = "master_key"


@final
class WrappingKeys:
    """The keys that data keys are wrapped by, in the memory of this process, by number.

    One of them wraps what is new. `renew` replaces them while the process works.
    """

    def __init__(self, keys: Mapping[int, bytes], *, sealing: int = 0) -> None:
        """Hold `keys`; those whose ring never changes are never renewed."""
        self._secrets: Mapping[int, bytes] = {}
        self._keys: Mapping[int, AESGCM] = {}
        self._sealing = sealing
        self._renewed_at: float | None = None
        self._put(keys, sealing)

    @property
    def secrets(self) -> Mapping[int, bytes]:
        """The keys themselves."""
        return self._secrets

    @property
    def sealing(self) -> tuple[int, AESGCM]:
        """The one for what is new.

        Raises `PortUnavailable` where there is none any more, and where another one may be in use by now: the ring was
        not read for as long as that waits.
        """
        if not self._keys:
            raise PortUnavailable(PORT, "it was retired: start again with the new one")
        if self._unread_for(SETTLED_AFTER):
            raise PortUnavailable(PORT, "its ring of keys cannot be read, so what is sealed now might be lost")
        return self._sealing, self._keys[self._sealing]

    def numbered(self, number: int) -> AESGCM:
        """Return the one of that number.

        Raises `CannotOpen` where there is none, and `PortBusy` where there may be one by now: the ring was not read
        for longer than a new key needs to become known.
        """
        found = self._keys.get(number)
        if found is not None:
            return found
        if not self._keys:
            raise PortUnavailable(PORT, "it was retired: start again with the new one")
        if self._unread_for(2 * KNOWN_WITHIN):
            raise PortBusy(PORT, "its ring of keys is being read again")
        raise CannotOpen("it was sealed under a key that the ring does not have")

    def renew(self, keys: Mapping[int, bytes], *, sealing: int, read_at: float) -> None:
        """Replace them by what the ring held at `read_at` on the monotonic clock; none: all of them were taken away."""
        self._put(keys, sealing)
        self._renewed_at = read_at

    def _unread_for(self, seconds: float) -> bool:
        return self._renewed_at is not None and time.monotonic() - self._renewed_at > seconds

    def _put(self, keys: Mapping[int, bytes], sealing: int) -> None:
        if dict(keys) != self._secrets:
            self._secrets, self._keys = dict(keys), {number: AESGCM(key) for number, key in keys.items()}
        self._sealing = sealing
