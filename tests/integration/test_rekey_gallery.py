import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dishka import Scope
from sqlalchemy import text

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.database import Database
from adapters.vector_index.memory import MemoryVectorIndex
from application.ports import index_states
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.rotations import Rotation, Rotations
from application.ports.vector_index import Entry
from application.use_cases.galleries.get_gallery import GetGallery
from application.use_cases.matching.search_faces import SearchFaces
from application.use_cases.references.enrol_references import EnrolReferences, SentImage
from application.use_cases.upkeep.rekey_gallery import RekeyGallery
from application.use_cases.upkeep.verify_index import VerifyIndex
from domain.audit import AuditAction
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from entrypoints.settings import DatabaseSettings, JobQueueSettings, Settings
from tests.e2e.in_process import InProcess, in_process
from tests.e2e.with_jobs import WithJobs

NAMES = [f"person-{number}" for number in range(12)]


class Node:
    """One process of the installation; all of them share one index, as they would a server."""

    def __init__(self, running: InProcess) -> None:
        self._running = running

    async def do(self, kind: type[Any], **values: Any) -> Any:  # noqa: ANN401 - any use case
        async with self._running.container(scope=Scope.REQUEST) as unit:
            return await (await unit.get(kind))(workspace=self._running.workspace, gallery="default", **values)

    async def enrol(self, name: str) -> None:
        image = SentImage(content=MemoryFaceEmbedder.picture(name))
        await self.do(EnrolReferences, images=[image], external_id=name)

    async def found(self, name: str) -> list[str | None]:
        result = await self.do(SearchFaces, frames=[MemoryFaceEmbedder.picture(name)])
        return [one.best.external_id for one in result.faces[0].candidates]

    async def gallery(self) -> GalleryId:
        found: GalleryId = (await self.do(GetGallery)).gallery.id
        return found

    async def rotation(self) -> Rotation:
        rotations = await self._running.container.get(Rotations)
        return await rotations.of(await self.gallery(), fresh=True)

    async def agrees(self) -> bool:
        agrees: bool = (await self.do(VerifyIndex)).agrees
        return agrees


class Shared(WithJobs):
    """Memory backends over an index that another process has too."""

    def __init__(self, index: MemoryVectorIndex) -> None:
        super().__init__()
        self.index._index = index  # type: ignore[misc]  # the test's own doing


@pytest.fixture
def index() -> MemoryVectorIndex:
    return MemoryVectorIndex(MemoryFaceEmbedder().space)


@pytest.fixture
async def nodes(database_url: str, tmp_path: Path, index: MemoryVectorIndex) -> AsyncIterator[tuple[Node, Node]]:
    settings = Settings(
        data_dir=tmp_path / "data",
        database=DatabaseSettings(url=database_url),
        job_queue=JobQueueSettings(upkeep_seconds=0.05),
    )
    async with in_process(settings, Shared(index)) as one, in_process(settings, Shared(index), work=False) as other:
        yield Node(one), Node(other)


@pytest.fixture
def known_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of one process that does one thing at a time, which need not wait until others know."""
    for module in ("adapters.persistence.rotations", "application.use_cases.upkeep.rekey_gallery"):
        monkeypatch.setattr(f"{module}.KNOWN_WITHIN", 0.05)
    assert index_states.KNOWN_WITHIN >= 0.05


async def kept(index: MemoryVectorIndex, gallery: GalleryId) -> dict[ReferenceId, np.ndarray]:
    """What somebody who steals the index has."""
    return {one.reference: one.embedding.vector async for one in index.entries(gallery)}


@pytest.mark.parametrize("takes", [0.0, 0.3])
async def test_nobody_is_missed_while_a_gallery_is_rekeyed(
    nodes: tuple[Node, Node], index: MemoryVectorIndex, monkeypatch: pytest.MonkeyPatch, takes: float
) -> None:
    """Where writing takes as long as that, somebody is on the way into the index at any moment."""
    here, there = nodes
    upsert = index.upsert

    async def slowly(entries: Sequence[Entry]) -> None:
        await asyncio.sleep(takes)
        await upsert(entries)

    monkeypatch.setattr(index, "upsert", slowly)
    for name in NAMES:
        await here.enrol(name)
    before = await kept(index, await here.gallery())
    done = asyncio.Event()
    late: list[str] = []
    asked = 0

    async def ask(node: Node, other: Node) -> None:
        """Search on one node for whom the other has just enrolled, and for everybody from before."""
        nonlocal asked
        while not done.is_set():
            new = f"late-{len(late)}"
            late.append(new)
            await other.enrol(new)
            for name in (new, NAMES[asked % len(NAMES)]):
                assert await node.found(name) == [name]
                asked += 1
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as clients:
        for pair in ((here, there), (there, here)):
            clients.create_task(ask(*pair))
        await here.do(RekeyGallery)
        done.set()
    assert asked > (5 if takes else 50)
    assert await here.rotation() == Rotation(writes=1)
    assert await here.agrees()
    after = await kept(index, await here.gallery())
    assert set(before) < set(after)
    assert len(after) == len(NAMES) + len(late)
    alike = [abs(float(before[one] @ after[one])) for one in before]
    # Vectors that know nothing of each other: the mean of so many is far below one.
    assert np.mean(alike) < 0.5


@pytest.mark.usefixtures("known_sooner")
@pytest.mark.parametrize("after", [0.0, 0.02, 0.12, 0.2, 0.3])
async def test_one_that_is_interrupted_goes_on(nodes: tuple[Node, Node], after: float) -> None:
    here, there = nodes
    for name in NAMES:
        await here.enrol(name)
    rekeying = asyncio.create_task(here.do(RekeyGallery))
    await asyncio.sleep(after)
    rekeying.cancel()
    await asyncio.gather(rekeying, return_exceptions=True)
    assert await there.found(NAMES[0]) == [NAMES[0]]
    again = (await here.rotation()).also is not None or (await here.rotation()).writes == 0
    await there.do(RekeyGallery)
    assert await here.rotation() == Rotation(writes=1 if again else 2)
    for name in NAMES:
        assert await there.found(name) == [name]
    assert await there.agrees()


@pytest.mark.usefixtures("known_sooner")
async def test_each_time_it_is_another_rotation(nodes: tuple[Node, Node], index: MemoryVectorIndex) -> None:
    here, _ = nodes
    await here.enrol("jane")
    seen = [await kept(index, await here.gallery())]
    for number in (1, 2):
        assert await here.do(RekeyGallery) == 1
        assert await here.rotation() == Rotation(writes=number)
        seen.append(await kept(index, await here.gallery()))
    [one, two, three] = [next(iter(vectors.values())) for vectors in seen]
    assert not np.allclose(one, two)
    assert not np.allclose(two, three)
    assert not np.allclose(one, three)


@pytest.mark.usefixtures("known_sooner")
async def test_two_at_once_do_not_both_go_on(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    await here.enrol("jane")
    results = await asyncio.gather(here.do(RekeyGallery), there.do(RekeyGallery), return_exceptions=True)
    assert [type(one) for one in results if isinstance(one, BaseException)] in ([PortBusy], [PortBusy, PortBusy])
    assert await here.found("jane") == ["jane"]


@pytest.mark.usefixtures("known_sooner")
async def test_it_is_written_into_the_audit_log(nodes: tuple[Node, Node], database: Database) -> None:
    here, _ = nodes
    await here.do(RekeyGallery)
    assert await noted(database) == [("begun", 1), ("turned", 1), ("done", 1)]


@pytest.mark.usefixtures("known_sooner")
@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_change_that_cannot_be_written_down_is_none(
    nodes: tuple[Node, Node], database: Database, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    here, there = nodes
    write, asked = SqlAuditTrail.write, 0

    async def gone(self: SqlAuditTrail) -> None:
        nonlocal asked
        if any(one.event.action is AuditAction.GALLERY_REKEYED for one in self._noted):
            asked += 1
            if asked == lost:
                raise PortUnavailable("database", "gone")
        await write(self)

    monkeypatch.setattr(SqlAuditTrail, "write", gone)
    before = [Rotation(), Rotation(writes=0, also=1), Rotation(writes=1, also=0)]
    with pytest.raises(PortUnavailable):
        await here.do(RekeyGallery)
    assert await here.rotation() == before[lost - 1]
    await there.do(RekeyGallery)
    assert await here.rotation() == Rotation(writes=1)
    assert await noted(database) == [("begun", 1), ("turned", 1), ("done", 1)]


async def noted(database: Database) -> list[tuple[str, int]]:
    asked = "SELECT details FROM audit_entries WHERE action = 'gallery.rekeyed' ORDER BY number"
    async with database.reads.connect() as connection:
        found = (await connection.execute(text(asked))).scalars().all()
    return [(one["stage"], one["rotation"]) for one in found]
