from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import final

from application.ports.erasures import Erasures, KeptPeople
from application.use_cases.erasure.ledger import Ledger
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedNames:
    """Which names erased people had, as hashes: what was asked for before they were erased must not make them anew."""

    kept: KeptPeople
    erasures: Erasures
    ledger: Ledger

    async def of(self, workspace: WorkspaceId, gallery: GalleryId, people: Sequence[PersonId]) -> Sequence[bytes]:
        """Return what stands for the `external_id`s of people who are still kept."""
        return [self.ledger.name(workspace, gallery, one) for one in await self.kept.names(workspace, people)]

    async def has_since(self, workspace: WorkspaceId, gallery: GalleryId, external_id: str, moment: datetime) -> bool:
        """Whether somebody of this name was erased at that moment or later."""
        name = self.ledger.name(workspace, gallery, self.kept.name(workspace, external_id))
        erasure = await self.erasures.of_digest(workspace, name)
        return erasure is not None and erasure.erased_at >= moment
