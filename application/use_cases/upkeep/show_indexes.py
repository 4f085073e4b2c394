from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.index_states import IndexName, IndexState, IndexStates
from application.ports.inventory import Inventory
from application.ports.record import Record
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.all_galleries import all_galleries


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownIndexes:
    """Which vector index answers, and how far the one beside it is."""

    state: IndexState
    set_up: Sequence[IndexName]
    """Those that this process has settings for."""
    references: int
    """In the record, in all galleries."""
    walked: int
    """References of them that the filling of the one beside has come past."""
    waiting: int
    """References that an index did not take yet: noted, and tried again."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShowIndexes:
    """Show which vector index answers searches, which is written beside it, and what waits."""

    states: IndexStates
    spaces: ServedSpaces
    inventory: Inventory
    record: Record

    async def __call__(self) -> ShownIndexes:
        galleries = await all_galleries(self.inventory)
        mark = await self.states.mark()
        return ShownIndexes(
            state=await self.states.now(fresh=True),
            set_up=tuple(self.spaces.first.indexes),
            references=sum([await self.record.references_in(one.workspace, one.id) for one in galleries]),
            walked=0 if mark is None else mark.references,
            waiting=await self.inventory.waiting(),
        )
