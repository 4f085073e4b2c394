"""What a job is told about the move of a gallery, and the unit of work that its steps share."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Self, final
from uuid import UUID

from application.ports.audit import AuditTrail
from application.ports.gallery_moves import GalleryMoves, SpareTemplates
from application.ports.repositories import GalleryRepository, ReconciliationRepository
from application.ports.transaction import Transaction
from application.use_cases.erasure.erased_in_reports import ErasedInReports
from application.use_cases.references.reconcile import Reconcile
from domain.embedding import SpaceId
from domain.gallery import GalleryId
from domain.job import Job
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOrder:
    """What a job is to do."""

    workspace: WorkspaceId
    gallery: GalleryId
    source: SpaceId
    target: SpaceId
    """Where the gallery is to go; what is to be kept, where it only is to settle."""
    switch: bool = False
    leave_behind: bool = False
    """Switch even though some references could not follow."""
    settle: bool = False
    """Give up the templates of all other spaces, and nothing else."""

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read the parameters of a job."""
        given = job.parameters
        return cls(
            workspace=job.workspace,
            gallery=GalleryId(UUID(str(given["gallery_id"]))),
            source=SpaceId(str(given["from"])),
            target=SpaceId(str(given["to"])),
            switch=bool(given["switch"]),
            leave_behind=bool(given["leave_behind"]),
            settle=bool(given["settle"]),
        )

    def parameters(self) -> Mapping[str, object]:
        """Return what `of` reads."""
        return {
            "gallery_id": str(self.gallery),
            "from": self.source,
            "to": self.target,
            "switch": self.switch,
            "leave_behind": self.leave_behind,
            "settle": self.settle,
        }


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MoveUnit:
    """What one transaction of a move works on."""

    galleries: GalleryRepository
    moves: GalleryMoves
    templates: SpareTemplates
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    erased: ErasedInReports
    audit: AuditTrail
    transaction: Transaction


MoveScope = Callable[[], AbstractAsyncContextManager[MoveUnit]]
"""Opens a unit of work of its own: a move goes on for hours, and commits as it goes."""
