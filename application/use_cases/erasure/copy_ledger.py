from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, final

from application.ports.clock import Clock
from application.ports.erasures import Erasures
from application.ports.transaction import Transaction
from application.use_cases.erasure.ledger import Ledger

_ALL: Final = 1_000_000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLedger:
    """Give every entry of the ledger of erasures, and those that wait to be filed there: each once, as a line."""

    erasures: Erasures
    ledger: Ledger
    transaction: Transaction
    clock: Clock

    async def __call__(self) -> AsyncIterator[bytes]:
        """Walk through them, what waits first. Raises `PortUnavailable` and `LedgerUnreadable`."""
        waiting = await self.erasures.unfiled(limit=_ALL)
        # No connection is held while the blob store is read.
        await self.transaction.rollback()
        for erasure in waiting:
            yield self.ledger.written(erasure)
        given = {erasure.id for erasure in waiting}
        async for one, key in self.ledger.since(None, now=self.clock.now()):
            if one not in given:
                yield self.ledger.written(await self.ledger.entry(key))
