from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, final

from application.ports.erasures import LedgerMark
from application.ports.transaction import Transaction
from application.use_cases.erasure.compare_ledger import CompareLedger
from application.use_cases.erasure.ledger import Ledger
from domain.erasure import Erasure

_PAGE: Final = 1000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLedger:
    """Give every erasure that the database knows or the ledger has: each once, as a line of the ledger.

    What the blob store has lost is among them, and what waits to be filed there.
    """

    mark: LedgerMark
    compare: CompareLedger
    ledger: Ledger
    transaction: Transaction

    async def __call__(self) -> AsyncIterator[bytes]:
        """Walk through them, what the ledger alone has last. Raises `PortUnavailable` and `LedgerUnreadable`."""
        new = dict((await self.compare()).new)
        after: Erasure | None = None
        while page := await self.mark.erasures(since=None, after=after, limit=_PAGE):
            await self.transaction.rollback()
            for erasure in page:
                new.pop(erasure.id, None)
                yield self.ledger.written(erasure)
            after = page[-1]
        await self.transaction.rollback()
        for key in new.values():
            yield self.ledger.written(await self.ledger.entry(key))
