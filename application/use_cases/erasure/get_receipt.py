from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.erasures import Erasures
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.erasure.receipts import SignedReceipt
from domain.erasure import ErasureId
from domain.errors import PersonNotFound
from domain.person import PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetReceipt:
    """Show the receipt of an erasure again, by its own id or by that of whoever was erased, also by themselves."""

    erasures: Erasures
    ledger: Ledger

    async def __call__(self, *, workspace: WorkspaceId, named: UUID) -> SignedReceipt:
        """Raises `PersonNotFound` where none is kept: an erasure that is known from the ledger alone has none."""
        found = await self.erasures.of_id(workspace, ErasureId(named))
        if found is None:
            found = await self.erasures.of_digest(workspace, self.ledger.person(workspace, PersonId(named)))
        if found is None or found.receipt is None:
            raise PersonNotFound("no receipt of that id, or of the erasure of that person, is kept in this workspace")
        return found.receipt
