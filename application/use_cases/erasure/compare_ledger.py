from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from application.ports.blob_store import BlobKey
from application.ports.clock import Clock
from application.ports.erasures import LedgerMark
from application.ports.transaction import Transaction
from application.use_cases.erasure.ledger import Ledger, day_of
from domain.erasure import ErasureId

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What the ledger has that the database has not."""

    new: Sequence[tuple[ErasureId, BlobKey]]
    """By time."""
    newest: datetime | None
    """The day of the last one that was listed, known or not; None where there is none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompareLedger:
    """List the ledger of erasures, and say which of its entries the database does not know; none is read."""

    ledger: Ledger
    mark: LedgerMark
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, since: datetime | None = None) -> Compared:
        """Look at all of it, or at the days from `since` on. Raises `PortUnavailable` and `LedgerUnreadable`."""
        new: list[tuple[ErasureId, BlobKey]] = []
        newest: BlobKey | None = None
        page: dict[ErasureId, BlobKey] = {}
        async for one, key in self.ledger.since(since, now=self.clock.now()):
            page[one], newest = key, key
            if len(page) == _PAGE:
                new += await self._unknown(page)
                page = {}
        new += await self._unknown(page)
        return Compared(new=new, newest=None if newest is None else day_of(newest))

    async def unknown(self, erasures: Sequence[ErasureId]) -> Sequence[ErasureId]:
        """Return those of them that the database does not know."""
        if not erasures:
            return ()
        known = await self.mark.known(erasures)
        # No connection is held while the blob store is read.
        await self.transaction.rollback()
        return [one for one in erasures if one not in known]

    async def _unknown(self, page: dict[ErasureId, BlobKey]) -> Sequence[tuple[ErasureId, BlobKey]]:
        return [(one, page[one]) for one in await self.unknown(list(page))]
