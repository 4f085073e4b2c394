from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.index_states import IndexName, IndexState, IndexStates
from application.ports.repositories import Pending, ReconciliationRepository
from application.ports.transaction import Transaction
from application.ports.vector_index import Entry, VectorIndex
from application.use_cases.references.places import image_key, template_place
from application.use_cases.spaces import ServedSpace, ServedSpaces
from domain.embedding import Embedding, SpaceId
from domain.enrolment import ReferenceId
from domain.errors import CannotOpen, FacepassError, InvalidValue, ReferenceNotFound, SpaceMismatch
from domain.workspace import WorkspaceId

FIRST_RETRY = timedelta(seconds=2)
LONGEST_RETRY = timedelta(minutes=5)
"""Waits double from the first to the longest: a dead index is asked again soon, and not hammered."""

OTHER_SPACE_RETRY = timedelta(hours=1)
"""Until a model pack is served again, or its table dropped, there is nothing to be done in its space."""

_DOUBLINGS = 8
"""After as many the longest wait is reached: 2 s times 256."""

_Failures = dict[ReferenceId, FacepassError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What is still to be done, and is noted."""

    behind: frozenset[ReferenceId] = frozenset()
    """Not in line yet: held by another transaction, or put off to be tried again."""
    unsearchable: frozenset[ReferenceId] = frozenset()
    """Not in the index that answers searches: those of them that it has not taken, and those left behind in another
    space than their gallery's."""
    damaged: frozenset[ReferenceId] = frozenset()
    """Those of `behind` with a template that does not open: trying again does not help."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    """Bring indexes and blob store in line with what the record says of some references at this moment.

    Locks, reads again, then writes or forgets: a late retry cannot bring a deleted face back. May run
    any number of times, and beside itself. While the installation moves to another index, both are written;
    while a gallery moves to another space, the indexes of both. Only served embedding spaces can be written: a
    reference of another one stays noted until that is served again. Its image, where it is gone, is removed at once.
    """

    reconciliations: ReconciliationRepository
    spaces: ServedSpaces
    states: IndexStates
    blobs: BlobStore
    cipher: Cipher
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, references: Sequence[ReferenceId]) -> Reconciled:
        """What fails for one holds up no other. Ends the running transaction.

        Raises `PortUnavailable` where the database is gone.
        """
        found = await self.reconciliations.lock(workspace, references)
        locked = {reference: pending for reference, pending in found.items() if pending is not None}
        state = await self.states.now()
        failed: _Failures = {}
        unsearchable = await self._write(workspace, locked, state, failed)
        await self._forget(workspace, locked, state, failed)
        await self.reconciliations.done(workspace, [reference for reference in locked if reference not in failed])
        for reference, error in failed.items():
            await self.reconciliations.postpone(
                workspace,
                reference,
                due=self.clock.now() + _wait(locked[reference], error),
                error=f"{error.code}: {error.message}",
            )
        await self.transaction.commit()
        held = found.keys() - locked.keys()
        return Reconciled(
            behind=frozenset(held | failed.keys()),
            unsearchable=frozenset(held | unsearchable),
            damaged=frozenset(one for one, error in failed.items() if isinstance(error, CannotOpen | InvalidValue)),
        )

    async def after_commit(self, *, workspace: WorkspaceId, references: Sequence[ReferenceId]) -> Reconciled:
        """Do it at once for a write that is durable already, whatever happens here: what fails, the sweep repeats.

        Raises nothing, whatever an adapter does: what was written is acknowledged.
        """
        try:
            return await self(workspace=workspace, references=references)
        except Exception:  # noqa: BLE001 - a third party's adapter may raise anything
            with suppress(FacepassError):
                await self.transaction.rollback()
            return Reconciled(behind=frozenset(references), unsearchable=frozenset(references))

    async def _write(
        self, workspace: WorkspaceId, locked: Mapping[ReferenceId, Pending], state: IndexState, failed: _Failures
    ) -> set[ReferenceId]:
        """Write what is there; return those that the index which answers searches has not taken."""
        entries: dict[SpaceId, list[Entry]] = {}
        for reference, pending in locked.items():
            for space in pending.templates:
                try:
                    entry = self._entry(workspace, reference, pending, space)
                except FacepassError as error:
                    failed[reference] = error
                else:
                    entries.setdefault(space, []).append(entry)
        taken: dict[SpaceId, set[ReferenceId]] = {}
        for space, some in entries.items():
            served = self.spaces.of(space)
            for name in state.written:
                refused = await _upserted(served, name, some)
                failed.update(refused)
                if name == state.serving:
                    taken[space] = {entry.reference for entry in some} - refused.keys()
        there = {reference: pending for reference, pending in locked.items() if pending.gallery is not None}
        return {reference for reference, pending in there.items() if reference not in taken.get(pending.space, set())}

    def _entry(self, workspace: WorkspaceId, reference: ReferenceId, pending: Pending, space: SpaceId) -> Entry:
        """Open what the index of a space is to hold."""
        if pending.key is None or pending.person is None or pending.gallery is None:
            raise ReferenceNotFound("the reference is gone")
        self.spaces.of(space)
        template = self.cipher.open(
            pending.templates[space], key=pending.key, place=template_place(workspace, reference)
        )
        return Entry(
            reference=reference,
            person=pending.person,
            gallery=pending.gallery,
            embedding=Embedding.from_bytes(template, space),
        )

    async def _forget(
        self, workspace: WorkspaceId, locked: Mapping[ReferenceId, Pending], state: IndexState, failed: _Failures
    ) -> None:
        """Take from each index what has no template of its space, and the images of those that are gone."""
        for served in self.spaces.all:
            absent = [reference for reference, pending in locked.items() if served.id not in pending.templates]
            if absent:
                try:
                    for index in served.written(state):
                        await index.remove(absent)
                except FacepassError as error:
                    failed.update(dict.fromkeys(absent, error))
        for reference, pending in locked.items():
            if pending.gallery is None:
                try:
                    await self.blobs.remove(image_key(workspace, reference))
                    for space in pending.spaces:
                        self.spaces.of(space)
                except FacepassError as error:
                    failed[reference] = error


async def _upserted(served: ServedSpace, name: IndexName, entries: Sequence[Entry]) -> _Failures:
    """Write entries to one index, and return those it did not take."""
    try:
        await served.index(name).upsert(entries)
    except (PortUnavailable, PortBusy) as error:
        return {entry.reference: error for entry in entries}
    except FacepassError:
        return await _upserted_singly(served.index(name), entries)
    return {}


async def _upserted_singly(index: VectorIndex, entries: Sequence[Entry]) -> _Failures:
    """Find out which of them the index refuses, and write the others."""
    refused: _Failures = {}
    for entry in entries:
        try:
            await index.upsert([entry])
        except FacepassError as error:
            refused[entry.reference] = error
    return refused


def _wait(pending: Pending, error: FacepassError) -> timedelta:
    if isinstance(error, SpaceMismatch):
        return OTHER_SPACE_RETRY
    return min(FIRST_RETRY * (1 << min(pending.attempts, _DOUBLINGS)), LONGEST_RETRY)
