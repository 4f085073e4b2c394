from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.index_states import IndexName
from application.ports.record import SealedTemplate
from application.ports.repositories import Pending, ReconciliationRepository
from application.ports.transaction import Transaction
from application.ports.vector_index import Entry, VectorIndex
from application.use_cases.matching.templates import opened_or_damaged
from application.use_cases.spaces import ServedSpaces
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.gallery import Gallery

AT_ONCE = 200
"""References of one write: who deletes one of them waits for it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WriteIndex:
    """Bring some references of a gallery in line in one index, and in no other; in every served space.

    Those that the record has are written, the others removed; what does not open is passed over. Under the locks of
    `Reconcile`, so that neither overtakes the other: what is written is what the record says until it is written. The
    transaction ends with nothing changed, so a note that was there before, for another index, is still there.
    """

    spaces: ServedSpaces
    reconciliations: ReconciliationRepository
    cipher: Cipher
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, gallery: Gallery, references: Sequence[ReferenceId], to: IndexName) -> None:
        """Write them, but for those that another transaction holds. Raises what the index and the database raise."""
        for start in range(0, len(references), AT_ONCE):
            some = references[start : start + AT_ONCE]
            now = self.clock.now()
            await self.reconciliations.note(gallery.workspace, some, space=gallery.space, due=now)
            try:
                found = await self.reconciliations.lock(gallery.workspace, some)
                locked = {reference: pending for reference, pending in found.items() if pending is not None}
                for served in self.spaces.all:
                    await self._write(served.index(to), served.id, gallery, locked)
            finally:
                await self.transaction.rollback()

    async def _write(
        self, index: VectorIndex, space: SpaceId, gallery: Gallery, locked: Mapping[ReferenceId, Pending]
    ) -> None:
        sealed = [one for reference, pending in locked.items() if (one := _sealed(reference, pending, space))]
        entries = [
            Entry(reference=one.reference, person=one.person, gallery=gallery.id, embedding=embedding)
            for one, embedding in opened_or_damaged(self.cipher, sealed, gallery)[0]
        ]
        if entries:
            await index.upsert(entries)
        if absent := [reference for reference, pending in locked.items() if space not in pending.templates]:
            await index.remove(absent)


def _sealed(reference: ReferenceId, pending: Pending, space: SpaceId) -> SealedTemplate | None:
    if pending.person is None or pending.key is None or space not in pending.templates:
        return None
    return SealedTemplate(
        reference=reference,
        person=pending.person,
        key=pending.key,
        space=space,
        template=pending.templates[space],
    )
