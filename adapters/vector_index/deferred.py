import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, final

import structlog

from application.ports.errors import PortUnavailable
from application.ports.ping import Ping
from application.ports.upkeep import Upkeep
from application.ports.vector_index import Droppable, Entry, Neighbour, VectorIndex
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId

PORT: Final = "vector_index"

AGAIN_AFTER: Final = 2.0
"""Seconds between two tries to open it: as often as readiness asks, and not with every call."""

Opening = Callable[[], AbstractAsyncContextManager[VectorIndex]]

_log = structlog.get_logger(__name__)


@final
class DeferredVectorIndex(VectorIndex, Droppable, Ping, Upkeep):
    """Another index, which may be away when the process starts: then it is opened as soon as it is there.

    A process that is started anew during an outage verifies and enrols, as one does that ran before. What is refused
    (a wrong key, another version) is no outage, and stops the start.
    """

    def __init__(self, opening: Opening, stack: AsyncExitStack) -> None:
        """Take what opens it, and what closes it in the end."""
        self._opening = opening
        self._stack = stack
        self._index: VectorIndex | None = None
        self._away: PortUnavailable | None = None
        self._again_at = 0.0
        self._trying = asyncio.Lock()

    @property
    def name(self) -> str:
        return PORT

    async def try_out(self) -> None:
        """Open it where it is there. Raises `PortRejected` where it refuses."""
        try:
            await self._opened()
        except PortUnavailable as error:
            _log.warning("vector_index_away", reason=error.message)

    async def search(
        self,
        probe: Embedding,
        *,
        gallery: GalleryId,
        people: int,
        per_person: int = 1,
        among: Sequence[PersonId] | None = None,
    ) -> Sequence[Neighbour]:
        index = await self._opened()
        return await index.search(probe, gallery=gallery, people=people, per_person=per_person, among=among)

    async def upsert(self, entries: Sequence[Entry]) -> None:
        await (await self._opened()).upsert(entries)

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        await (await self._opened()).remove(references)

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        async for entry in (await self._opened()).entries(gallery):
            yield entry

    async def clear(self, gallery: GalleryId) -> None:
        await (await self._opened()).clear(gallery)

    async def drop(self) -> bool:
        """As the port has it; whoever goes on with this one opens it anew."""
        index: object = await self._opened()
        if not isinstance(index, Droppable) or not await index.drop():
            return False
        self._index = None
        await self._stack.aclose()
        return True

    async def ping(self) -> None:
        index: object = await self._opened()
        if isinstance(index, Ping):
            await index.ping()

    async def tidy(self) -> None:
        index: object = await self._opened()
        if isinstance(index, Upkeep):
            await index.tidy()

    async def _opened(self) -> VectorIndex:
        if self._index is not None:
            return self._index
        async with self._trying:
            if self._index is None:
                self._index = await self._open()
            return self._index

    async def _open(self) -> VectorIndex:
        if self._away is not None and time.monotonic() < self._again_at:
            raise PortUnavailable(PORT, self._away.message)
        try:
            index = await self._stack.enter_async_context(self._opening())
        except PortUnavailable as error:
            self._away, self._again_at = error, time.monotonic() + AGAIN_AFTER
            raise
        self._away = None
        return index


@asynccontextmanager
async def deferred(opening: Opening) -> AsyncIterator[DeferredVectorIndex]:
    """Open an index for a block, at once where it is there, later where it is away."""
    async with AsyncExitStack() as stack:
        index = DeferredVectorIndex(opening, stack)
        await index.try_out()
        yield index
