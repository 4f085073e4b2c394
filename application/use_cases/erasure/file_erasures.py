from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.erasures import Erasures, FiledErasures, Traces
from application.ports.index_states import IndexStates
from application.ports.receipts import ReceiptSigner
from application.ports.transaction import Transaction
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.erasure.receipts import SignedReceipt, finished, is_finished
from domain.erasure import Erasure

_AT_ONCE = 100
_PAGE = 1000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FileErasures:
    """Write to the ledger what could not be written when somebody was erased, and finish receipts of killed calls."""

    erasures: Erasures
    filing: FiledErasures
    traces: Traces
    states: IndexStates
    ledger: Ledger
    signer: ReceiptSigner
    transaction: Transaction

    async def __call__(self) -> int:
        """Return how many were written. Raises `PortUnavailable` where the blob store is still down."""
        waiting = await self.erasures.unfiled(limit=_AT_ONCE)
        # No connection is held while the blob store is written.
        await self.transaction.rollback()
        for erasure in waiting:
            await self.ledger.file(erasure)
            if erasure.receipt is not None and not is_finished(erasure.receipt):
                await self._finish(erasure, erasure.receipt)
            await self.filing.filed(erasure)
            await self.transaction.commit()
        return len(waiting)

    async def _finish(self, erasure: Erasure, receipt: SignedReceipt) -> None:
        """Say what is left by now; a call that is at it still has the last word."""
        waiting = await self._waiting(erasure)
        state = await self.states.now()
        await self.filing.finish(erasure, finished(receipt, self.signer, indexes=state.written, waiting=waiting))

    async def _waiting(self, erasure: Erasure) -> int:
        """Return how many of its references are noted to be removed."""
        digests = frozenset(erasure.digests)
        found = 0
        after: UUID | None = None
        while page := await self.traces.noted(erasure.workspace, after=after, limit=_PAGE):
            found += sum(self.ledger.reference(erasure.workspace, one) in digests for one in page)
            after = page[-1]
        return found
