import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import final
from uuid import UUID

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.errors import PortRejected, PortUnavailable
from application.ports.index_states import KNOWN_WITHIN, IndexName, IndexState, IndexStateChanges, IndexStates
from application.ports.inventory import Inventory
from application.ports.record import Record
from application.ports.transaction import Transaction
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.all_galleries import all_galleries
from application.use_cases.upkeep.compare_indexes import Compared, CompareIndexes
from application.use_cases.upkeep.fill_index import FillIndex
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.embedding import SpaceId
from domain.errors import VersionMismatch
from domain.gallery import Gallery, GalleryId


class Stage(Enum):
    """What a move is about, in this order."""

    DECLARE = "declare"
    """Waits until every process writes both."""
    FILL = "fill"
    COMPARE = "compare"
    SWITCH = "switch"


_SETTLED_WITHIN = 30
"""Seconds that what the index did not take in time has to be taken: it is tried again after 2, 4 and 8."""

_NOBODYS = GalleryId(UUID(int=0))
"""A gallery that holds nobody: an index that walks it to the end has answered, and nothing stays open."""

Told = Callable[[Stage, int, int], None]
"""Called with the stage, and how many references of how many are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a move came to."""

    state: IndexState
    """What holds now."""
    references: int
    """In the record, of all galleries."""
    compared: Compared | None
    """None where nothing had to be compared: it answered already, or was kept in line all the while."""
    unserved: Mapping[SpaceId, Sequence[Gallery]]
    """Galleries whose models are not among this process's settings: it cannot fill the index with their faces, and
    the nodes that serve them would search an empty one. So nothing is switched where there are any."""

    @property
    def done(self) -> bool:
        """Whether the index answers searches."""
        return not self.unserved and (self.compared is None or self.compared.agrees)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MoveIndex:
    """Let another index answer searches, while the service goes on.

    Declares it, so that every process writes both; fills it from the record; compares it with the record, and its
    decisions with those of the index that answers; lets it take over. The old one is kept in line afterwards, so
    that the same call with its name takes it back at once. Stopped at any point, it goes on from there when it is
    called again. Why no reference is lost on the way is in `docs/decisions/0020-moving-to-another-index.md`.

    Where the old index is not among this process's settings, decisions are compared with nothing and the old one is
    not kept in line: it cannot be taken back.
    """

    states: IndexStates
    changes: IndexStateChanges
    spaces: ServedSpaces
    inventory: Inventory
    record: Record
    fill: FillIndex
    compare: CompareIndexes
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, to: IndexName, told: Told = lambda *_: None) -> Moved:
        """Move to the index of that name; nothing is declared while references are of models not served here.

        Raises `PortRejected` where it is not set up, or a third index is on its way, `VersionMismatch` where another
        command changed the state meanwhile, and what the indexes and the database raise.
        """
        self._require_set_up(to)
        state = await self.states.now(fresh=True)
        galleries = await all_galleries(self.inventory)
        references = sum([await self.record.references_in(one.workspace, one.id) for one in galleries])
        moved = Moved(state=state, references=references, compared=None, unserved={})
        if state.serving == to:
            return moved
        if unserved := await self._unserved():
            return replace(moved, unserved=unserved)
        state = await self._declared(state, to)
        moved = replace(moved, state=state)
        waiting = await self.inventory.waiting()
        if not state.filled or waiting:
            moved = replace(moved, compared=await self._filled(state, to, references, told))
        if not moved.done:
            return moved
        told(Stage.SWITCH, references, references)
        await self._settled(to, waiting)
        await self._require_answer(to)
        # Once more: somebody may have been enrolled into one before every process wrote both.
        if unserved := await self._unserved():
            return replace(moved, unserved=unserved)
        return replace(moved, state=await self._switched(state, to))

    async def _unserved(self) -> Mapping[SpaceId, Sequence[Gallery]]:
        served = {space.id for space in self.spaces.all}
        found = await self.inventory.spaces()
        return {space: galleries for space, galleries in found.items() if space not in served}

    async def _declared(self, state: IndexState, to: IndexName) -> IndexState:
        if to in state.written:
            return state
        if state.beside is not None:
            raise PortRejected(
                "vector_index",
                f"the installation is between {state.serving!r} and {state.beside!r}: drop the latter first",
            )
        return await self._changed(state, replace(state, beside=to, filled=False), to=to, stage="begun")

    async def _filled(self, state: IndexState, to: IndexName, references: int, told: Told) -> Compared:
        """Fill and compare. The wait is repeated by a move that goes on: the first may have been cut short."""
        if not state.filled:
            told(Stage.DECLARE, 0, references)
            await asyncio.sleep(2 * KNOWN_WITHIN)
        # Not before: of galleries that are made from now on, everything is written to both.
        galleries = await all_galleries(self.inventory)
        if not state.filled:
            await self.fill(
                state=state, to=to, galleries=galleries, counted=lambda done: told(Stage.FILL, done, references)
            )
        return await self.compare(
            serving=state.serving,
            to=to,
            galleries=galleries,
            counted=lambda done: told(Stage.COMPARE, done, references),
        )

    async def _switched(self, state: IndexState, to: IndexName) -> IndexState:
        """Let both change places; one that is not set up here, nobody may be able to write: it is left behind."""
        old = state.serving if state.serving in self.spaces.first.indexes else None
        switched = replace(state, serving=to, beside=old, filled=old is not None)
        return await self._changed(state, switched, to=to, stage="switched")

    async def _changed(self, before: IndexState, after: IndexState, *, to: IndexName, stage: str) -> IndexState:
        """Change it and write that down, in one transaction."""
        dated = replace(after, changed_at=self.clock.now())
        if not await self.changes.change(before, dated):
            raise VersionMismatch("another command changed which index answers, or which is filled, meanwhile")
        self.audit.note(
            AuditEvent(workspace=INSTANCE, action=AuditAction.INDEX_MIGRATED, details={"stage": stage, "index": to})
        )
        await self.transaction.commit()
        return dated

    async def _settled(self, to: IndexName, before: int) -> None:
        """Wait until the index has taken what it did not take in time meanwhile: it would not be found there."""
        for _ in range(_SETTLED_WITHIN):
            if await self.inventory.waiting() <= before:
                return
            await asyncio.sleep(1.0)
        raise PortUnavailable("vector_index", f"{to!r} does not take what is written to it")

    async def _require_answer(self, to: IndexName) -> None:
        """Raise what the index raises where it does not answer: then nothing is switched."""
        for space in self.spaces.all:
            async for _ in space.index(to).entries(_NOBODYS):
                pass

    def _require_set_up(self, to: IndexName) -> None:
        if to not in self.spaces.first.indexes:
            raise PortRejected("vector_index", f"this process has no settings for an index named {to!r}")
