from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from adapters.vector_index import deferred as module
from adapters.vector_index.deferred import deferred
from adapters.vector_index.memory import MemoryVectorIndex
from application.conformance.vector_index import SPACE, axis, embedding, entry
from application.ports.errors import PortRejected, PortUnavailable
from application.ports.vector_index import VectorIndex
from domain.gallery import GalleryId
from tests.e2e.in_process import StoppableVectorIndex

GALLERY = GalleryId(UUID(int=1))


class Server:
    """Opens one memory index, where it is not away."""

    def __init__(self) -> None:
        self.away = True
        self.opened = self.closed = self.asked = 0
        self.index = MemoryVectorIndex(SPACE)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[VectorIndex]:
        self.asked += 1
        if self.away:
            raise PortUnavailable("vector_index", "it cannot be reached")
        self.opened += 1
        yield self.index
        self.closed += 1


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)


async def test_an_index_that_is_there_is_opened_at_once_and_closed_once() -> None:
    server = Server()
    server.away = False
    async with deferred(server.open) as index:
        assert server.opened == 1
        await index.upsert([entry(axis(0), GALLERY)])
        await index.ping()
    assert (server.opened, server.closed) == (1, 1)


@pytest.mark.usefixtures("at_once")
async def test_an_index_that_is_away_is_opened_when_it_is_back() -> None:
    server = Server()
    async with deferred(server.open) as index:
        for ask in (index.ping, index.tidy, lambda: index.upsert([entry(axis(0), GALLERY)])):
            with pytest.raises(PortUnavailable):
                await ask()
        with pytest.raises(PortUnavailable):
            await index.search(embedding(axis(0)), gallery=GALLERY, people=1)
        server.away = False
        await index.upsert([entry(axis(0), GALLERY)])
        assert len(await index.search(embedding(axis(0)), gallery=GALLERY, people=1)) == 1
        assert server.opened == 1
    assert server.closed == 1


async def test_an_index_that_is_away_is_not_asked_with_every_call() -> None:
    server = Server()
    async with deferred(server.open) as index:
        for _ in range(5):
            with pytest.raises(PortUnavailable):
                await index.remove([])
        assert server.asked == 1


async def test_an_index_that_refuses_stops_the_start() -> None:
    @asynccontextmanager
    async def refused() -> AsyncIterator[VectorIndex]:
        raise PortRejected("vector_index", "it does not know the key")
        yield

    with pytest.raises(PortRejected):
        async with deferred(refused):
            pass


async def test_who_goes_on_with_a_dropped_index_opens_it_anew() -> None:
    server = Server()
    server.away = False
    async with deferred(server.open) as index:
        await index.upsert([entry(axis(0), GALLERY)])
        assert await index.drop()
        assert (server.opened, server.closed) == (1, 1)
        assert list(await index.search(embedding(axis(0)), gallery=GALLERY, people=1)) == []
        assert server.opened == 2
    assert server.closed == 2


async def test_an_index_that_cannot_be_dropped_says_so_and_keeps_what_it_has() -> None:
    @asynccontextmanager
    async def plain() -> AsyncIterator[VectorIndex]:
        yield StoppableVectorIndex(SPACE)

    async with deferred(plain) as index:
        await index.upsert([entry(axis(0), GALLERY)])
        assert not await index.drop()
        assert len(await index.search(embedding(axis(0)), gallery=GALLERY, people=1)) == 1
