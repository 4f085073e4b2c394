import asyncio
from dataclasses import dataclass, replace
from typing import final

from application.ports.clock import Clock
from application.ports.errors import PortRejected
from application.ports.index_states import KNOWN_WITHIN, IndexName, IndexState, IndexStates
from application.ports.inventory import Inventory
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.all_galleries import all_galleries
from domain.errors import VersionMismatch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DropIndex:
    """Stop writing the index beside the one that answers, and empty it.

    After a move that is the old one, and there is no way back but another move; before it, the new one, and the move
    is given up. Called again it empties what an earlier call left.
    """

    states: IndexStates
    spaces: ServedSpaces
    inventory: Inventory
    clock: Clock

    async def __call__(self, *, name: IndexName) -> bool:
        """Return whether it was emptied: not where this process has no settings for it.

        Raises `PortRejected` where it answers searches, `VersionMismatch` where another command changed the state or
        writes it again meanwhile, and what the index and the database raise.
        """
        state = await self.states.now(fresh=True)
        if name == state.serving:
            raise PortRejected("vector_index", f"{name!r} answers searches; move to another one first")
        if name == state.beside:
            await self._leave(state)
        elif name not in self.spaces.first.indexes:
            raise PortRejected("vector_index", f"no index named {name!r} is written, or set up here")
        return await self._emptied(name)

    async def _leave(self, state: IndexState) -> None:
        # Before: whoever does not know of a switch yet still searches it, so it is written until all do. After: whoever
        # does not know of this yet still writes it.
        await asyncio.sleep(2 * KNOWN_WITHIN)
        left = replace(state, beside=None, filled=False, changed_at=self.clock.now())
        if not await self.states.change(state, left):
            raise VersionMismatch("another command changed which index answers, or which is filled, meanwhile")
        await asyncio.sleep(2 * KNOWN_WITHIN)

    async def _emptied(self, name: IndexName) -> bool:
        if name not in self.spaces.first.indexes:
            return False
        for gallery in await all_galleries(self.inventory):
            if name in (await self.states.now(fresh=True)).written:
                raise VersionMismatch(f"another command began to write {name!r} again meanwhile")
            for space in self.spaces.all:
                await space.index(name).clear(gallery.id)
        return True
