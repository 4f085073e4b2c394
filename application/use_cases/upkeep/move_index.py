import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import final

from application.ports.clock import Clock
from application.ports.errors import PortRejected
from application.ports.index_states import KNOWN_WITHIN, IndexName, IndexState, IndexStates
from application.ports.inventory import Inventory
from application.ports.record import Record
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.all_galleries import all_galleries
from application.use_cases.upkeep.compare_indexes import Compared, CompareIndexes
from application.use_cases.upkeep.fill_index import FillIndex
from domain.errors import VersionMismatch
from domain.gallery import Gallery


class Stage(Enum):
    """What a move is about, in this order."""

    DECLARE = "declare"
    """Waits until every process writes both."""
    FILL = "fill"
    COMPARE = "compare"
    SWITCH = "switch"


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
    unserved: tuple[Gallery, ...]
    """Their models are not among this process's settings, so they were not written."""

    @property
    def done(self) -> bool:
        """Whether the index answers searches."""
        return self.compared is None or self.compared.agrees


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
    spaces: ServedSpaces
    inventory: Inventory
    record: Record
    fill: FillIndex
    compare: CompareIndexes
    clock: Clock

    async def __call__(self, *, to: IndexName, told: Told = lambda *_: None) -> Moved:
        """Move to the index of that name.

        Raises `PortRejected` where it is not set up, or a third index is on its way, `VersionMismatch` where another
        command changed the state meanwhile, and what the indexes and the database raise.
        """
        self._require_set_up(to)
        state = await self._declared(to)
        galleries = await all_galleries(self.inventory)
        served = {space.id for space in self.spaces.all}
        moved = Moved(
            state=state,
            references=sum([await self.record.references_in(one.workspace, one.id) for one in galleries]),
            compared=None,
            unserved=tuple(gallery for gallery in galleries if gallery.space not in served),
        )
        if state.serving == to:
            return moved
        if not state.filled or await self.inventory.waiting():
            moved = replace(moved, compared=await self._filled(state, to, galleries, moved.references, told))
        if not moved.done:
            return moved
        told(Stage.SWITCH, moved.references, moved.references)
        await self._require_answer(to, galleries)
        return replace(moved, state=await self._switched(state, to))

    async def _declared(self, to: IndexName) -> IndexState:
        state = await self.states.now(fresh=True)
        if to in state.written:
            return state
        if state.beside is not None:
            raise PortRejected(
                "vector_index",
                f"the installation is between {state.serving!r} and {state.beside!r}: drop the latter first",
            )
        return await self._changed(state, replace(state, beside=to, filled=False))

    async def _filled(
        self, state: IndexState, to: IndexName, galleries: Sequence[Gallery], references: int, told: Told
    ) -> Compared:
        """Fill and compare. The wait is repeated by a move that goes on: the first may have been cut short."""
        if not state.filled:
            told(Stage.DECLARE, 0, references)
            await asyncio.sleep(2 * KNOWN_WITHIN)
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
        return await self._changed(state, replace(state, serving=to, beside=old, filled=old is not None))

    async def _changed(self, before: IndexState, after: IndexState) -> IndexState:
        dated = replace(after, changed_at=self.clock.now())
        if not await self.states.change(before, dated):
            raise VersionMismatch("another command changed which index answers, or which is filled, meanwhile")
        return dated

    async def _require_answer(self, to: IndexName, galleries: Sequence[Gallery]) -> None:
        """Raise what the index raises where it does not answer: then nothing is switched."""
        for gallery in galleries[:1]:
            for space in self.spaces.all:
                await anext(space.index(to).entries(gallery.id), None)

    def _require_set_up(self, to: IndexName) -> None:
        if to not in self.spaces.first.indexes:
            raise PortRejected("vector_index", f"this process has no settings for an index named {to!r}")
