from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.repositories import Pending, ReconciliationRepository
from application.ports.transaction import Transaction
from application.ports.vector_index import Entry, VectorIndex
from application.use_cases.references.places import image_key, template_place
from domain.embedding import Embedding, require_same_space
from domain.enrolment import ReferenceId
from domain.errors import FacepassError, SpaceMismatch
from domain.workspace import WorkspaceId

FIRST_RETRY = timedelta(seconds=2)
LONGEST_RETRY = timedelta(minutes=5)
"""Waits double from the first to the longest: a dead index is asked again soon, and not hammered."""

OTHER_SPACE_RETRY = timedelta(hours=1)
"""Until a model pack is served again, or its table dropped, there is nothing to be done in its space."""

_DOUBLINGS = 8
"""After as many the longest wait is reached: 2 s times 256."""

_Failures = dict[ReferenceId, FacepassError]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    """Bring index and blob store in line with what the record says of some references at this moment.

    Locks, reads again, then writes or forgets: a late retry cannot bring a deleted face back. May run
    any number of times, and beside itself. The index knows the served embedding space alone: a reference
    of another one stays noted until that is served again. Its image, where it is gone, is removed at once.
    """

    reconciliations: ReconciliationRepository
    embedder: FaceEmbedder
    index: VectorIndex
    blobs: BlobStore
    cipher: Cipher
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, references: Sequence[ReferenceId]) -> frozenset[ReferenceId]:
        """Return those that are not in line yet: held by another transaction, or put off to be tried again.

        What fails for one holds up no other. Ends the running transaction. Raises `PortUnavailable` where the
        database is gone.
        """
        found = await self.reconciliations.lock(workspace, references)
        locked = {reference: pending for reference, pending in found.items() if pending is not None}
        failed: _Failures = {}
        await self._write(workspace, locked, failed)
        await self._forget(workspace, locked, failed)
        await self.reconciliations.done(workspace, [reference for reference in locked if reference not in failed])
        for reference, error in failed.items():
            await self.reconciliations.postpone(
                workspace,
                reference,
                due=self.clock.now() + _wait(locked[reference], error),
                error=f"{error.code}: {error.message}",
            )
        await self.transaction.commit()
        return frozenset((found.keys() - locked.keys()) | failed.keys())

    async def after_commit(
        self, *, workspace: WorkspaceId, references: Sequence[ReferenceId]
    ) -> frozenset[ReferenceId]:
        """Do it at once for a write that is durable already, whatever happens here: what fails, the sweep repeats.

        Returns those that are not in line yet. Raises nothing of `FacepassError`.
        """
        try:
            return await self(workspace=workspace, references=references)
        except FacepassError:
            with suppress(FacepassError):
                await self.transaction.rollback()
            return frozenset(references)

    async def _write(self, workspace: WorkspaceId, locked: Mapping[ReferenceId, Pending], failed: _Failures) -> None:
        entries: list[Entry] = []
        for reference, pending in locked.items():
            try:
                entry = self._entry(workspace, reference, pending)
            except FacepassError as error:
                failed[reference] = error
            else:
                entries.extend([entry] if entry else [])
        if not entries:
            return
        try:
            await self.index.upsert(entries)
        except (PortUnavailable, PortBusy) as error:
            failed.update((entry.reference, error) for entry in entries)
        except FacepassError:
            await self._write_singly(entries, failed)

    async def _write_singly(self, entries: Sequence[Entry], failed: _Failures) -> None:
        """Find out which of them the index refuses, and write the others."""
        for entry in entries:
            try:
                await self.index.upsert([entry])
            except FacepassError as error:
                failed[entry.reference] = error

    def _entry(self, workspace: WorkspaceId, reference: ReferenceId, pending: Pending) -> Entry | None:
        """Open what the index is to hold, None for a reference that is gone."""
        if pending.template is None or pending.key is None or pending.person is None or pending.gallery is None:
            return None
        require_same_space(pending.space, self.embedder.space.id)
        template = self.cipher.open(pending.template, key=pending.key, place=template_place(workspace, reference))
        return Entry(
            reference=reference,
            person=pending.person,
            gallery=pending.gallery,
            embedding=Embedding.from_bytes(template, pending.space),
        )

    async def _forget(self, workspace: WorkspaceId, locked: Mapping[ReferenceId, Pending], failed: _Failures) -> None:
        gone = {reference: pending for reference, pending in locked.items() if pending.template is None}
        ours = [reference for reference, pending in gone.items() if pending.space == self.embedder.space.id]
        if ours:
            try:
                await self.index.remove(ours)
            except FacepassError as error:
                failed.update(dict.fromkeys(ours, error))
        for reference, pending in gone.items():
            try:
                await self.blobs.remove(image_key(workspace, reference))
                require_same_space(pending.space, self.embedder.space.id)
            except FacepassError as error:
                failed[reference] = error


def _wait(pending: Pending, error: FacepassError) -> timedelta:
    if isinstance(error, SpaceMismatch):
        return OTHER_SPACE_RETRY
    return min(FIRST_RETRY * (1 << min(pending.attempts, _DOUBLINGS)), LONGEST_RETRY)
