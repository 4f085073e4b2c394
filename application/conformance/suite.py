"""The contracts, filled from an adapter that the plugin's `opened` opens. Not for importing: `plugin.run` runs it.

A command leaves an operator's backend as it is. What takes one away, stops it half-way or looks behind the port is
not tried, and says so; a test of the adapter's own can.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final, NoReturn

import pytest

from application.conformance.blob_store import BlobStoreContract, OpenBlobStore, listed
from application.conformance.face_embedder import FaceEmbedderContract
from application.conformance.job_queue import Handler, JobQueueContract, empties, job, running
from application.conformance.liveness_checker import LivenessCheckerContract
from application.conformance.plugin import Open
from application.conformance.vector_index import VectorIndexContract
from application.ports.blob_store import BlobKey, BlobStore
from application.ports.face_embedder import FaceEmbedder
from application.ports.job_queue import JobQueue
from application.ports.liveness_checker import LivenessChecker
from application.ports.vector_index import VectorIndex

_FOR_TESTS: Final = "needs the fixture `{}`, which only a test of the adapter's own can give"


def _left_alone(fixture: str) -> NoReturn:
    pytest.skip(_FOR_TESTS.format(fixture))


class TestVectorIndex(VectorIndexContract):
    """An index of the kit's space; its galleries are new in each test, and cleared."""

    @pytest.fixture
    async def index(self, opened: Open, place: str) -> AsyncIterator[VectorIndex]:
        async with opened(place) as index:
            yield index

    @pytest.fixture
    async def unavailable(self) -> VectorIndex | None:
        _left_alone("unavailable")


class TestBlobStore(BlobStoreContract):
    """Storage of its own for each test, emptied behind it."""

    @pytest.fixture
    async def open_store(self, opened: Open, place: str) -> AsyncIterator[OpenBlobStore]:
        yield lambda: opened(place)
        async with opened(place) as store:
            for key in await listed(store):
                await store.remove(key)

    @pytest.fixture
    def unavailable(self) -> BlobStore:
        _left_alone("unavailable")

    @pytest.fixture
    def half_written(self) -> Callable[[BlobKey, bytes], Awaitable[None]]:
        _left_alone("half_written")

    @pytest.fixture
    def leftovers(self) -> Callable[[], Awaitable[int]]:
        _left_alone("leftovers")


class TestJobQueue(JobQueueContract):
    """A queue of its own for each test, emptied behind it."""

    @pytest.fixture
    async def queue(self, opened: Open, place: str) -> AsyncIterator[JobQueue]:
        async with opened(place) as queue:
            yield queue
            if await queue.waiting():
                await queue.put(job(1))  # the one that a test leaves for in an hour
                with suppress(TimeoutError):
                    async with running(queue, Handler()):
                        await empties(queue)

    @pytest.fixture
    def unavailable(self) -> JobQueue:
        _left_alone("unavailable")

    @pytest.fixture
    def lose_everything(self) -> Callable[[], Awaitable[None]]:
        _left_alone("lose_everything")

    @pytest.fixture
    def beside(self) -> JobQueue:
        _left_alone("beside")

    @pytest.fixture
    def crash(self) -> Callable[[], Awaitable[None]]:
        _left_alone("crash")


class TestFaceEmbedder(FaceEmbedderContract):
    """One for all tests, for loading a model takes long; and one for each that closes it."""

    @pytest.fixture(scope="class")
    async def embedder(self, opened: Open) -> AsyncIterator[FaceEmbedder]:
        async with opened("conformance") as embedder:
            yield embedder

    @pytest.fixture
    async def closable(self, opened: Open, place: str) -> AsyncIterator[FaceEmbedder]:
        async with opened(place) as embedder:
            yield embedder


class TestLivenessChecker(LivenessCheckerContract):
    """As with face embedders."""

    @pytest.fixture(scope="class")
    async def checker(self, opened: Open) -> AsyncIterator[LivenessChecker]:
        async with opened("conformance") as checker:
            yield checker

    @pytest.fixture
    async def closable(self, opened: Open, place: str) -> AsyncIterator[LivenessChecker]:
        async with opened(place) as checker:
            yield checker

    @pytest.fixture
    def without_model(self) -> Callable[[], LivenessChecker]:
        _left_alone("without_model")
