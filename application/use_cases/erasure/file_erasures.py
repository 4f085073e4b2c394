from dataclasses import dataclass, replace
from typing import final

from application.ports.erasures import Erasures
from application.ports.transaction import Transaction
from application.use_cases.erasure.ledger import Ledger

_AT_ONCE = 100


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FileErasures:
    """Write to the ledger what could not be written when somebody was erased."""

    erasures: Erasures
    ledger: Ledger
    transaction: Transaction

    async def __call__(self) -> int:
        """Return how many were written. Raises `PortUnavailable` where the blob store is still down."""
        waiting = await self.erasures.unfiled(limit=_AT_ONCE)
        # No connection is held while the blob store is written.
        await self.transaction.rollback()
        for erasure in waiting:
            await self.ledger.file(erasure)
            await self.erasures.save(replace(erasure, filed=True))
            await self.transaction.commit()
        return len(waiting)
