import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from application.ports.audit import AuditTrail
from application.ports.cipher import Cipher
from application.ports.errors import PortRejected
from application.ports.key_ring import KNOWN_WITHIN, OVER_AFTER, SETTLED_AFTER, KeyRing, RingEntry, RingPurpose
from application.ports.master_key import MasterKey
from application.ports.transaction import Transaction
from application.ports.wrapped_keys import WrappedKeys
from domain.audit import INSTANCE, AuditAction, AuditEvent

PORT = "master_key"
SECRET_BYTES = 32

RewrapProgress = Callable[[int, int], None]
"""Is told how many data keys were wrapped anew, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What there is behind a rotation."""

    number: int
    """Of the wrapping key in use now."""
    rewrapped: int
    """Data keys that this call wrapped anew."""
    damaged: int
    """Those that no key opened."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RotateMasterKey:
    """Change over to another master key while the service serves.

    The ring is wrapped for the new one as well, and gets a new wrapping key. When every process knows that, each data
    key is wrapped anew. Processes may be started with either master key from then on, until the old one is retired.
    Interrupted at any moment it goes on where it was when it is called again; what was sealed is opened throughout.
    """

    master: MasterKey
    ring: KeyRing
    keys: WrappedKeys
    cipher: Cipher
    audit: AuditTrail
    transaction: Transaction

    async def __call__(self, *, new: MasterKey, progress: RewrapProgress) -> Rotated:
        """Raises `PortRejected` where `new` is the one in use, or a change to a third one has not ended."""
        number = await self._begun(new)
        await aged(self.ring, self.transaction, number, SETTLED_AFTER)
        await asyncio.sleep(2 * KNOWN_WITHIN)  # every process that reads the ring wraps by it from then on
        rewrapped, damaged = await rewrap_all(self.keys, self.cipher, number, progress)
        self.audit.note(
            AuditEvent(
                workspace=INSTANCE,
                action=AuditAction.MASTER_KEY_ROTATED,
                details={"stage": "rewrapped", "number": number, "keys": rewrapped, "damaged": damaged},
            )
        )
        await self.transaction.commit()
        return Rotated(number=number, rewrapped=rewrapped, damaged=damaged)

    async def _begun(self, new: MasterKey) -> int:
        """Wrap the ring for the new master key, with a new wrapping key in it; return the number of that."""
        if new.fingerprint == self.master.fingerprint:
            raise PortRejected(PORT, "the new master key is the one that is in use already")
        while True:
            before = await self.ring.entries()
            masters = {entry.master for entry in before}
            if masters - {new.fingerprint, self.master.fingerprint}:
                raise PortRejected(
                    PORT, "a change to another master key has not ended: `facepass keys retire-master` ends it"
                )
            if new.fingerprint in masters:
                await self.transaction.rollback()
                return newest(before)
            ours = [entry for entry in before if entry.master == self.master.fingerprint]
            number = newest(before) + 1
            another = secrets.token_bytes(SECRET_BYTES)
            added = [
                await _wrapped(self.master, RingPurpose.WRAP, number, another),
                await _wrapped(new, RingPurpose.WRAP, number, another),
            ]
            for entry in ours:
                secret = await self.master.unwrap(entry.wrapped, context=entry.context)
                added.append(await _wrapped(new, entry.purpose, entry.number, secret))
            if await self.ring.change(before, [*before, *added]):
                self.audit.note(
                    AuditEvent(
                        workspace=INSTANCE,
                        action=AuditAction.MASTER_KEY_ROTATED,
                        details={"stage": "begun", "number": number},
                    )
                )
                await self.transaction.commit()
                return number
            await self.transaction.rollback()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RetireMasterKey:
    """Take from the ring whatever another master key than the one in use opens, then what wrapped data keys before.

    For when every process was started with the new one: those that were not seal and open nothing from then on. The
    former wrapping key stays until every data key is wrapped anew, also those that were still being written under it.
    """

    master: MasterKey
    ring: KeyRing
    keys: WrappedKeys
    cipher: Cipher
    audit: AuditTrail
    transaction: Transaction

    async def __call__(self, *, progress: RewrapProgress) -> Rotated:
        """Raises `PortRejected` where this process was not started with the newest master key."""
        entries = await self.ring.entries()
        hashing = [entry for entry in entries if entry.purpose is RingPurpose.HASH]
        if min(hashing, key=lambda entry: entry.age).master != self.master.fingerprint:
            raise PortRejected(
                PORT, "this was started with the master key that is to be retired: set the new one and call it again"
            )
        number = newest(entries)
        await aged(self.ring, self.transaction, number, OVER_AFTER)
        await self._keep()
        self._note({"stage": "retired", "number": number})
        await self.transaction.commit()
        rewrapped, damaged = await self._emptied(number, progress)
        await self._keep(number)
        self._note({"stage": "ended", "number": number, "keys": rewrapped, "damaged": damaged})
        await self.transaction.commit()
        return Rotated(number=number, rewrapped=rewrapped, damaged=damaged)

    async def _keep(self, number: int | None = None) -> None:
        """Leave in the ring what this master key opens, and of the wrapping keys only `number`, where one is named."""
        entries = await self.ring.entries()
        ours = [entry for entry in entries if entry.master == self.master.fingerprint]
        kept = [entry for entry in ours if number is None or _is_current(entry, number)]
        if not await self.ring.change(entries, kept):
            raise PortRejected(PORT, "the ring of keys was changed meanwhile: call this again")

    async def _emptied(self, number: int, progress: RewrapProgress) -> tuple[int, int]:
        """Wrap anew until nothing is left, or being written, that another wrapping key wraps.

        Those that no key opens are left. Returns how many were wrapped anew, and how many are damaged.
        """
        rewrapped = 0
        while True:
            await self.keys.written()
            done, damaged = await rewrap_all(self.keys, self.cipher, number, progress)
            rewrapped += done
            if not done:
                return rewrapped, damaged
            await asyncio.sleep(4 * KNOWN_WITHIN)  # whoever read one of them before has opened it by then

    def _note(self, details: Mapping[str, object]) -> None:
        self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.MASTER_KEY_ROTATED, details=details))


def newest(entries: Sequence[RingEntry]) -> int:
    """Return the number of the newest wrapping key."""
    return max(entry.number for entry in entries if entry.purpose is RingPurpose.WRAP)


async def aged(ring: KeyRing, transaction: Transaction, number: int, seconds: float) -> None:
    """Wait until this wrapping key has been there for so long."""
    while True:
        here = [entry for entry in await ring.entries() if (entry.purpose, entry.number) == (RingPurpose.WRAP, number)]
        await transaction.rollback()
        if all(entry.age > seconds for entry in here):
            return
        await asyncio.sleep(KNOWN_WITHIN / 2)


async def rewrap_all(keys: WrappedKeys, cipher: Cipher, number: int, progress: RewrapProgress) -> tuple[int, int]:
    """Wrap every data key by this one; return how many were, and how many nothing opens."""
    done, total = 0, _others(await keys.counts(), number)
    progress(done, total)
    while True:
        before = done
        async for page in keys.rewrap(cipher.rewrapped, number=number):
            done += page
            progress(done, max(done, total))
        if done == before:
            return done, _others(await keys.counts(), number)


def _others(counts: Mapping[int, int], number: int) -> int:
    return sum(rows for by, rows in counts.items() if by != number)


def _is_current(entry: RingEntry, number: int) -> bool:
    return entry.purpose is RingPurpose.HASH or entry.number == number


async def _wrapped(master: MasterKey, purpose: RingPurpose, number: int, secret: bytes) -> RingEntry:
    """Wrap a secret, and see that it comes back: the old key will not be there to help."""
    entry = RingEntry(purpose=purpose, number=number, master=master.fingerprint, wrapped=b"")
    entry = replace(entry, wrapped=await master.wrap(secret, context=entry.context))
    if await master.unwrap(entry.wrapped, context=entry.context) != secret:
        raise PortRejected(PORT, "the new master key does not give back what it wrapped")
    return entry
