import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.errors import PortRejected
from application.ports.index_states import KNOWN_WITHIN, IndexName, IndexState, IndexStateChanges, IndexStates
from application.ports.inventory import Inventory
from application.ports.transaction import Transaction
from application.ports.vector_index import Droppable, VectorIndex
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.all_galleries import all_galleries
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.embedding import SpaceId
from domain.errors import VersionMismatch
from domain.gallery import Gallery


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What became of an index that is written no more."""

    set_up: bool
    """Whether this process has settings for it: else nothing of it was removed."""
    cleared: tuple[SpaceId, ...] = ()
    """Spaces whose index cannot be removed at once: the galleries that there are were cleared, and what it holds of
    those that are gone, or of faces whose removal was still to be done, is there."""
    unserved: Mapping[SpaceId, Sequence[Gallery]]
    """Galleries whose models are not among this process's settings: what it holds of these is there."""

    @property
    def emptied(self) -> bool:
        """Whether nothing is left, as far as this process can know."""
        return self.set_up and not self.cleared and not self.unserved


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DropIndex:
    """Stop writing the index beside the one that answers, and remove what it holds.

    After a move that is the old one, and there is no way back but another move; before it, the new one, and the move
    is given up. Called again it removes what an earlier call left. Why no search that still runs on it ends in a wrong
    answer is in `docs/decisions/0020-moving-to-another-index.md`.
    """

    states: IndexStates
    changes: IndexStateChanges
    spaces: ServedSpaces
    inventory: Inventory
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, name: IndexName) -> Dropped:
        """Drop it.

        Raises `PortRejected` where it answers searches, `VersionMismatch` where another command changed the state or
        writes it again meanwhile, and what the index and the database raise.
        """
        state = await self.states.now(fresh=True)
        if name == state.serving:
            raise PortRejected("vector_index", f"{name!r} answers searches; move to another one first")
        if name == state.beside:
            await self._leave(state, name)
        elif name not in self.spaces.first.indexes:
            raise PortRejected("vector_index", f"no index named {name!r} is written, or set up here")
        served = {space.id for space in self.spaces.all}
        held = await self.inventory.spaces()
        unserved = {space: galleries for space, galleries in held.items() if space not in served}
        if name not in self.spaces.first.indexes:
            return Dropped(set_up=False, unserved=unserved)
        cleared = await self._emptied(name)
        await self._note(name, stage="emptied")
        return Dropped(set_up=True, cleared=cleared, unserved=unserved)

    async def _note(self, name: IndexName, *, stage: str) -> None:
        self.audit.note(
            AuditEvent(workspace=INSTANCE, action=AuditAction.INDEX_DROPPED, details={"stage": stage, "index": name})
        )
        await self.transaction.commit()

    async def _leave(self, state: IndexState, name: IndexName) -> None:
        # Before: whoever does not know of a switch yet still searches it, so it is written until all do. After: whoever
        # does not know of this yet still writes it, and a search that ends before its storage goes is right.
        await asyncio.sleep(2 * KNOWN_WITHIN)
        left = replace(state, beside=None, filled=False, changed_at=self.clock.now())
        if not await self.changes.change(state, left):
            raise VersionMismatch("another command changed which index answers, or which is filled, meanwhile")
        await self._note(name, stage="left")
        await asyncio.sleep(2 * KNOWN_WITHIN)

    async def _emptied(self, name: IndexName) -> tuple[SpaceId, ...]:
        """Return the spaces whose index had to be cleared gallery by gallery."""
        cleared: list[SpaceId] = []
        for space in self.spaces.all:
            await self._require_left(name)
            index = space.index(name)
            droppable: object = index
            if not isinstance(droppable, Droppable) or not await droppable.drop():
                await self._clear(name, index)
                cleared.append(space.id)
        return tuple(cleared)

    async def _clear(self, name: IndexName, index: VectorIndex) -> None:
        for gallery in await all_galleries(self.inventory):
            await self._require_left(name)
            await index.clear(gallery.id)

    async def _require_left(self, name: IndexName) -> None:
        if name in (await self.states.now(fresh=True)).written:
            raise VersionMismatch(f"another command began to write {name!r} again meanwhile")
