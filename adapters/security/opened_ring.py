import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from secrets import token_bytes
from typing import Final, final

import structlog

from adapters.security.master_key import LocalMasterKey
from adapters.security.secret import KEY_LENGTH, Secret
from adapters.security.wrapping_keys import PORT, WrappingKeys
from application.ports.errors import PortRejected
from application.ports.key_ring import KNOWN_WITHIN, RingEntry, RingPurpose
from application.ports.master_key import MasterKey
from domain.errors import CannotOpen, FacepassError

log = structlog.get_logger("facepass.keys")

ReadRing = Callable[[], Awaitable[Sequence[RingEntry]]]

_LEGACY_WRAP: Final = "wrap"
"""What the one wrapping key was derived for when there was no ring yet."""


@final
class OpenedRing:
    """The secrets of the ring in the memory of this process, read again while it works.

    A request asks neither the database nor the master key: a task looks once in `KNOWN_WITHIN` seconds whether there
    is another wrapping key.
    """

    def __init__(self, master: MasterKey, read: ReadRing) -> None:
        self._master = master
        self._read = read
        self._known: dict[tuple[RingPurpose, int], bytes] = {}
        self._hashing: Secret | None = None
        self.wrapping: Final = WrappingKeys({})

    @property
    def hashing(self) -> Secret:
        """What keyed hashes follow from, once the ring was read."""
        if self._hashing is None:
            raise RuntimeError("the ring was not read yet")
        return self._hashing

    @property
    def first_master(self) -> bytes:
        """The fingerprint of the master key that the hashing secret is itself, in an installation from before the ring.

        In any other one it is nobody's.
        """
        return LocalMasterKey(self.hashing).fingerprint

    def follows_from(self, secret: Secret) -> bool:
        """Whether it is nothing but what was derived from this master secret before there was a ring."""
        return self.hashing == secret and self.wrapping.secrets == {0: secret.derive(_LEGACY_WRAP)}

    async def read(self) -> None:
        """Read it and open what is new.

        Raises `PortRejected` where there is nothing in it for this master key, or something that it does not open.
        """
        read_at = time.monotonic()
        ours = [entry for entry in await self._read() if entry.master == self._master.fingerprint]
        for entry in ours:
            if (entry.purpose, entry.number) not in self._known:
                self._known[entry.purpose, entry.number] = await self._opened(entry)
        here = {(entry.purpose, entry.number) for entry in ours}
        self._known = {place: secret for place, secret in self._known.items() if place in here}
        wrapping = {number: secret for (purpose, number), secret in self._known.items() if purpose is RingPurpose.WRAP}
        settled = [entry.number for entry in ours if entry.purpose is RingPurpose.WRAP and entry.settled]
        self.wrapping.renew(wrapping, sealing=max(settled, default=min(wrapping, default=0)), read_at=read_at)
        hashing = self._known.get((RingPurpose.HASH, 0))
        if hashing is None or not wrapping:
            raise PortRejected(
                PORT,
                "the data was sealed under another master key: start with the one that was in use, or a backup of it",
            )
        if self._hashing is None:
            self._hashing = Secret(hashing)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Read it again and again in the block, whatever a read raises."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(KNOWN_WITHIN / 2)
            try:
                await self.read()
            except PortRejected as error:
                log.error("master_key_retired", reason=error.message)  # noqa: TRY400 - the reason is all there is
            except FacepassError as error:
                log.debug("ring_not_read", reason=error.message)
            except Exception:  # a third party's master key may raise anything
                log.exception("ring_not_read")

    async def _opened(self, entry: RingEntry) -> bytes:
        try:
            return await self._master.unwrap(entry.wrapped, context=entry.context)
        except CannotOpen as error:
            raise PortRejected(
                PORT,
                f"the {entry.purpose} key {entry.number} of the ring does not open: its row in key_ring is damaged",
            ) from error


async def first_entries(master: MasterKey, *, legacy: Secret | None) -> Sequence[RingEntry]:
    """Make a ring for an installation that has none.

    `legacy` is the master secret of one that has data from before there was a ring: what was derived from it then
    comes into the ring, so that nothing has to be sealed again and no keyed hash changes.
    """
    hashing = token_bytes(KEY_LENGTH) if legacy is None else legacy.value
    wrapping = token_bytes(KEY_LENGTH) if legacy is None else legacy.derive(_LEGACY_WRAP)
    return [
        await wrapped_entry(master, RingPurpose.HASH, 0, hashing),
        await wrapped_entry(master, RingPurpose.WRAP, 0, wrapping),
    ]


async def wrapped_entry(master: MasterKey, purpose: RingPurpose, number: int, secret: bytes) -> RingEntry:
    """Wrap a secret of the ring."""
    place = RingEntry(purpose=purpose, number=number, master=master.fingerprint, wrapped=b"")
    wrapped = await master.wrap(secret, context=place.context)
    return RingEntry(purpose=purpose, number=number, master=master.fingerprint, wrapped=wrapped)
