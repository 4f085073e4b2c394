from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.repositories import Pending, ReconciliationRepository
from application.ports.transaction import Transaction
from application.ports.vector_index import Entry, VectorIndex
from application.use_cases.references.places import image_key, template_place
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from domain.errors import PortError
from domain.workspace import WorkspaceId

FIRST_RETRY = timedelta(seconds=2)
LONGEST_RETRY = timedelta(minutes=5)
"""Waits double from the first to the longest: a dead index is asked again soon, and not hammered."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    """Bring index and blob store in line with what the record says of some references at this moment.

    Locks, reads again, then writes or forgets: a late retry cannot bring a deleted face back. May run
    any number of times, and beside itself.
    """

    reconciliations: ReconciliationRepository
    index: VectorIndex
    blobs: BlobStore
    cipher: Cipher
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, references: Sequence[ReferenceId]) -> bool:
        """Return whether all of them are in line now; what is not stays noted and is tried again later."""
        locked = {
            reference: pending
            for reference in references
            if (pending := await self.reconciliations.lock(workspace, reference)) is not None
        }
        try:
            await self._write(workspace, locked)
            await self._forget(workspace, locked)
        except PortError as error:
            for reference, pending in locked.items():
                wait = min(FIRST_RETRY * 2**pending.attempts, LONGEST_RETRY)
                await self.reconciliations.postpone(
                    workspace, reference, due=self.clock.now() + wait, error=f"{error.code}: {error.message}"
                )
            await self.transaction.commit()
            return False
        for reference in locked:
            await self.reconciliations.done(workspace, reference)
        await self.transaction.commit()
        return True

    async def _write(self, workspace: WorkspaceId, locked: dict[ReferenceId, Pending]) -> None:
        entries = [
            Entry(
                reference=reference,
                person=pending.person,
                gallery=pending.gallery,
                embedding=Embedding.from_bytes(
                    self.cipher.open(pending.template, key=pending.key, place=template_place(workspace, reference)),
                    pending.space,
                ),
            )
            for reference, pending in locked.items()
            if pending.template is not None
            and pending.key is not None
            and pending.person is not None
            and pending.gallery is not None
        ]
        if entries:
            await self.index.upsert(entries)

    async def _forget(self, workspace: WorkspaceId, locked: dict[ReferenceId, Pending]) -> None:
        gone = [reference for reference, pending in locked.items() if pending.template is None]
        if gone:
            await self.index.remove(gone)
            for reference in gone:
                await self.blobs.remove(image_key(workspace, reference))
