from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from application.ports.erasures import LedgerMark
from application.ports.transaction import Transaction
from application.use_cases.erasure.ledger import Ledger
from domain.erasure import Erasure

_PAGE: Final = 1000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RefileErasures:
    """Write to the ledger again what it had, and lost with the blob store or a part of it."""

    mark: LedgerMark
    ledger: Ledger
    transaction: Transaction

    async def __call__(self, *, since: datetime | None = None) -> int:
        """Return how many it had lost; with `since`, of those alone that were made from then on.

        Raises `PortUnavailable`.
        """
        lost = 0
        after: Erasure | None = None
        while page := await self.mark.erasures(since=since, after=after, limit=_PAGE):
            # No connection is held while the blob store is read.
            await self.transaction.rollback()
            for erasure in await self.ledger.lacking([one for one in page if one.filed]):
                await self.ledger.file(erasure)
                lost += 1
            after = page[-1]
        await self.transaction.rollback()
        return lost
