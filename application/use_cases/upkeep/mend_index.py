from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.clock import Clock
from application.ports.record import Record
from application.ports.repositories import ReconciliationRepository
from application.use_cases.references.reconcile import Reconcile
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

AT_ONCE = 500
"""References of one transaction, and of one write to the index."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MendIndex:
    """Bring some references of a gallery in line, whatever the index holds of them.

    Those that the record has are written, the others removed. Safe beside a running service: each is
    noted, locked and read again, as after any other write.
    """

    record: Record
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    clock: Clock

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, references: Sequence[ReferenceId]
    ) -> int:
        """Return how many are not in line yet: they stay noted, and the service tries them again.

        Raises `SpaceMismatch` for a gallery of another space than the one served.
        """
        place = await self.record.gallery(workspace, gallery)
        self.reconcile.spaces.of(place.space)
        waiting = 0
        for start in range(0, len(references), AT_ONCE):
            some = references[start : start + AT_ONCE]
            await self.reconciliations.note(workspace, some, space=place.space, due=self.clock.now())
            waiting += len((await self.reconcile(workspace=workspace, references=some)).behind)
        return waiting
