import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.index_states import IndexName, IndexStates
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

BESIDE_WITHIN = 2.0
BESIDE_EACH = 0.02
"""Seconds that the index beside the one that answers has for a write, and for each reference of it in addition.

Whoever enrols waits no longer for an index that hangs, and whoever deletes no longer for a reference that is held. It
is a hundred times what a write takes, and what was not taken stays noted.
"""

_Failures = dict[ReferenceId, FacepassError]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What every index is to hold of some references, by space, and what it is not to hold."""

    entries: Mapping[SpaceId, Mapping[ReferenceId, Entry]]
    absent: Mapping[SpaceId, Sequence[ReferenceId]]

    @property
    def named(self) -> frozenset[ReferenceId]:
        """All that an index is told of."""
        return frozenset[ReferenceId]().union(*self.entries.values(), *self.absent.values())


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
        contents = self._contents(workspace, locked, failed)
        refused = await self._brought(state.serving, contents)
        there = {reference: pending.space for reference, pending in locked.items() if pending.gallery is not None}
        searchable = {
            reference
            for reference, space in there.items()
            if reference in contents.entries.get(space, {}) and reference not in refused.get(space, {})
        }
        failed.update(_of_any_space(refused))
        await self._forget_images(workspace, locked, failed)
        if state.beside is not None:
            failed = await self._brought_beside(state.beside, contents) | failed
        await self.reconciliations.done(workspace, [reference for reference in locked if reference not in failed])
        for reference, error in failed.items():
            await self.reconciliations.postpone(
                workspace,
                reference,
                due=self.clock.now() + _wait(locked[reference], error),
                error=f"{error.code}: {error.message}",
                searchable=reference in searchable,
            )
        await self.transaction.commit()
        held = found.keys() - locked.keys()
        return Reconciled(
            behind=frozenset(held | failed.keys()),
            unsearchable=frozenset(held | (there.keys() - searchable)),
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

    def _contents(self, workspace: WorkspaceId, locked: Mapping[ReferenceId, Pending], failed: _Failures) -> _Contents:
        entries: dict[SpaceId, dict[ReferenceId, Entry]] = {}
        for reference, pending in locked.items():
            for space in pending.templates:
                try:
                    entry = self._entry(workspace, reference, pending, space)
                except FacepassError as error:
                    failed[reference] = error
                else:
                    entries.setdefault(space, {})[reference] = entry
        absent = {
            served.id: [reference for reference, pending in locked.items() if served.id not in pending.templates]
            for served in self.spaces.all
        }
        return _Contents(entries, absent)

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

    async def _brought(self, name: IndexName, contents: _Contents) -> Mapping[SpaceId, _Failures]:
        """Bring one index in line, and no other; return what it did not take, by space."""
        failed: dict[SpaceId, _Failures] = {}
        for served in self.spaces.all:
            refused: _Failures = {}
            if entries := contents.entries.get(served.id):
                refused.update(await _upserted(served, name, list(entries.values())))
            if absent := contents.absent[served.id]:
                refused.update(await _removed(served, name, absent))
            failed[served.id] = refused
        return failed

    async def _brought_beside(self, name: IndexName, contents: _Contents) -> _Failures:
        """Do the same to the index that answers nobody, as long as that holds nobody up."""
        try:
            async with asyncio.timeout(BESIDE_WITHIN + len(contents.named) * BESIDE_EACH):
                return _of_any_space(await self._brought(name, contents))
        except TimeoutError:
            late = PortUnavailable("vector_index", f"{name!r} did not take it in time")
            return dict.fromkeys(contents.named, late)

    async def _forget_images(
        self, workspace: WorkspaceId, locked: Mapping[ReferenceId, Pending], failed: _Failures
    ) -> None:
        """Remove the images of references that are gone."""
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


async def _removed(served: ServedSpace, name: IndexName, references: Sequence[ReferenceId]) -> _Failures:
    """Take references from one index, and return them where it does not answer."""
    try:
        await served.index(name).remove(references)
    except FacepassError as error:
        return dict.fromkeys(references, error)
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


def _of_any_space(failures: Mapping[SpaceId, _Failures]) -> _Failures:
    return {reference: error for some in failures.values() for reference, error in some.items()}


def _wait(pending: Pending, error: FacepassError) -> timedelta:
    if isinstance(error, SpaceMismatch):
        return OTHER_SPACE_RETRY
    return min(FIRST_RETRY * (1 << min(pending.attempts, _DOUBLINGS)), LONGEST_RETRY)
