"""The port to the secrets below the master key."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

KNOWN_WITHIN = 1.0
"""Seconds within which every process knows of a change of the ring."""

SETTLED_AFTER = 5.0
"""Seconds, on the database's clock, that a wrapping key waits before anything is wrapped by it: by then every process
can open what is, or has not read the ring for so long that it wraps nothing any more."""

OVER_AFTER = 60.0
"""Seconds, on the database's clock, after which every data key that is wrapped by the wrapping key before it is being
written, or was: `SETTLED_AFTER` twice, since a process may not have read the ring for as long; the rest is what whoever
has wrapped a data key may wait for a connection and for locks."""


class RingPurpose(StrEnum):
    """What a secret of the ring is for."""

    WRAP = "wrap"
    """Wraps data keys. There may be several, by number: the newest one wraps what is new."""
    HASH = "hash"
    """Keyed hashes follow from it. It stays the same when the master key is another, and so do they."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RingEntry:
    """One secret, wrapped by one master key."""

    purpose: RingPurpose
    number: int
    master: bytes
    """The fingerprint of the master key that wrapped it."""
    wrapped: bytes
    age: float = field(default=0.0, compare=False)
    """Seconds that it has been there, on the database's clock."""

    @property
    def settled(self) -> bool:
        """Whether a wrapping key may be used."""
        return self.age > SETTLED_AFTER

    @property
    def identity(self) -> tuple[RingPurpose, int, bytes]:
        """What tells it from others."""
        return self.purpose, self.number, self.master

    @property
    def context(self) -> bytes:
        """What the master key binds it to."""
        return f"{self.purpose}/{self.number}".encode()


class KeyRing(Protocol):
    """The ring as it is kept. Each method raises `PortUnavailable` where the database is gone."""

    @abstractmethod
    async def entries(self) -> Sequence[RingEntry]:
        """Return all of it, under every master key."""

    @abstractmethod
    async def change(self, before: Sequence[RingEntry], after: Sequence[RingEntry]) -> bool:
        """Replace what is kept with the running transaction; False where it is not `before` any more.

        Entries that are in both stay as they are, with their age.
        """
