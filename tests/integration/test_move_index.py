import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from dishka import AsyncContainer, Scope, provide
from sqlalchemy import text, update

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence import index_states
from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database, engine
from adapters.persistence.tables import REFERENCES
from adapters.vector_index.memory import MemoryVectorIndex
from adapters.vector_index.pgvector import PgvectorVectorIndex
from adapters.vector_index.qdrant import open_qdrant
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.index_states import IndexName, IndexState, IndexStateChanges, IndexStates, Mark
from application.ports.record import Record
from application.ports.repositories import Page
from application.ports.transaction import Transaction
from application.ports.vector_index import Entry, Neighbour, VectorIndex
from application.use_cases.galleries.create_gallery import CreateGallery
from application.use_cases.matching.search_faces import SearchFaces, SearchResult
from application.use_cases.people.delete_person import DeletePerson
from application.use_cases.references import reconcile
from application.use_cases.references.enrol_references import Enrolled, EnrolReferences, SentImage
from application.use_cases.references.list_references import ListReferences
from application.use_cases.upkeep import compare_indexes, drop_index, move_index
from application.use_cases.upkeep.drop_index import DropIndex, Dropped
from application.use_cases.upkeep.move_index import Moved, MoveIndex, Stage
from application.use_cases.upkeep.rebuild_index import RebuildIndex
from application.use_cases.upkeep.show_indexes import ShowIndexes, ShownIndexes
from application.use_cases.upkeep.verify_index import IndexReport, VerifyIndex
from application.use_cases.upkeep.write_index import AT_ONCE, WriteIndex
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import Reference, ReferenceId
from domain.errors import VersionMismatch
from domain.gallery import GalleryId, Policy
from domain.person import PersonId
from domain.workspace import WorkspaceId
from entrypoints.settings import DatabaseSettings, JobQueueSettings, Settings, VectorIndexSettings
from entrypoints.wiring.indexes import Indexes
from entrypoints.wiring.startup import opened as opened_container
from tests.e2e.in_process import in_process
from tests.integration.test_use_cases import MadeUp

OLD, NEW, THIRD = IndexName("old"), IndexName("new"), IndexName("third")


class Watched(VectorIndex):
    """A memory index that tells what is done to it before it is done, and may lose what it is told to keep."""

    def __init__(self, space: EmbeddingSpace) -> None:
        self._index = MemoryVectorIndex(space)
        self.written = 0
        self.loses: Container[ReferenceId] = frozenset()
        self.before: Callable[[str, int], Awaitable[None]] | None = None

    async def search(
        self,
        probe: Embedding,
        *,
        gallery: GalleryId,
        people: int,
        per_person: int = 1,
        among: Sequence[PersonId] | None = None,
    ) -> Sequence[Neighbour]:
        await self._tell("search", 1)
        return await self._index.search(probe, gallery=gallery, people=people, per_person=per_person, among=among)

    async def upsert(self, entries: Sequence[Entry]) -> None:
        await self._tell("upsert", len(entries))
        self.written += len(entries)
        await self._index.upsert([entry for entry in entries if entry.reference not in self.loses])

    async def remove(self, references: Sequence[ReferenceId]) -> None:
        await self._tell("remove", len(references))
        await self._index.remove(references)

    async def entries(self, gallery: GalleryId) -> AsyncIterator[Entry]:
        await self._tell("entries", 1)
        async for entry in self._index.entries(gallery):
            yield entry

    async def clear(self, gallery: GalleryId) -> None:
        await self._tell("clear", 1)
        await self._index.clear(gallery)

    async def _tell(self, what: str, number: int) -> None:
        if self.before is not None:
            await self.before(what, number)


class Everything(Container[ReferenceId]):
    """What an index loses that nobody writes."""

    def __contains__(self, _: object) -> bool:
        return True


class Backends(MadeUp):
    """Indexes by name, as a process has settings for them."""

    def __init__(self, embedder: FaceEmbedder, indexes: dict[IndexName, VectorIndex]) -> None:
        super().__init__(embedder)
        self._indexes = indexes

    @provide(override=True)
    def its_indexes(self) -> Indexes:
        return Indexes({self.embedder.space.id: self._indexes})


@dataclass(frozen=True, slots=True)
class Node:
    """A process of an installation: the use cases, each call in a unit of work of its own."""

    container: AsyncContainer
    workspace: WorkspaceId

    async def do(self, kind: type[Any], **values: Any) -> Any:  # noqa: ANN401 - any use case
        async with self.container(scope=Scope.REQUEST) as unit:
            return await (await unit.get(kind))(**values)

    async def here(self, kind: type[Any], **values: Any) -> Any:  # noqa: ANN401 - any use case
        return await self.do(kind, workspace=self.workspace, **{"gallery": "default", **values})

    async def enrol(self, name: str, *, times: int = 1, gallery: str = "default") -> Enrolled:
        image = SentImage(content=MemoryFaceEmbedder.picture(name))
        enrolled: Enrolled = await self.here(EnrolReferences, images=[image] * times, external_id=name, gallery=gallery)
        return enrolled

    async def found(self, name: str, *, gallery: str = "default") -> list[str | None]:
        result: SearchResult = await self.here(SearchFaces, frames=[MemoryFaceEmbedder.picture(name)], gallery=gallery)
        return [one.best.external_id for one in result.faces[0].candidates]

    async def found_together(self, *names: str) -> list[list[str | None]]:
        """Who is found for each face of a picture that shows them all."""
        picture = MemoryFaceEmbedder.group(names)
        result: SearchResult = await self.here(SearchFaces, frames=[picture], every_face=True)
        return [[one.best.external_id for one in face.candidates] for face in result.faces]

    async def searchable(self) -> list[bool]:
        """What the record says of each reference of the gallery."""
        page: Page[Reference] = await self.here(ListReferences, limit=100, after=None)
        return [one.searchable for one in page.items]

    async def move(self, to: IndexName, told: Callable[[Stage, int, int], None] = lambda *_: None) -> Moved:
        moved: Moved = await self.do(MoveIndex, to=to, told=told)
        return moved

    async def report(self, index: IndexName) -> IndexReport:
        report: IndexReport = await self.here(VerifyIndex, index=index)
        return report

    async def shown(self) -> ShownIndexes:
        shown: ShownIndexes = await self.do(ShowIndexes)
        return shown

    async def execute(self, statement: Any) -> None:  # noqa: ANN401 - any statement
        async with self.container(scope=Scope.REQUEST) as unit:
            connection = await unit.get(SqlConnection)
            await connection.execute(statement)
            await connection.commit()


@pytest.fixture
def embedder() -> MemoryFaceEmbedder:
    return MemoryFaceEmbedder()


@pytest.fixture
def known_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of one process that does one thing at a time, which need not wait until others know."""
    for module in (index_states, move_index, drop_index, compare_indexes):
        monkeypatch.setattr(module, "KNOWN_WITHIN", 0.1)


@pytest.fixture
def old(embedder: MemoryFaceEmbedder) -> Watched:
    return Watched(embedder.space)


@pytest.fixture
def new(embedder: MemoryFaceEmbedder) -> Watched:
    return Watched(embedder.space)


class Installation:
    """One database, to be opened by processes with other settings."""

    def __init__(self, url: str, folder: Path, embedder: MemoryFaceEmbedder) -> None:
        self._url = url
        self._folder = folder
        self._embedder = embedder

    @asynccontextmanager
    async def node(self, **indexes: VectorIndex) -> AsyncIterator[Node]:
        """A process that serves, with indexes by name: the first is the one that `VECTOR_INDEX` names."""
        settings, backends = self._chosen(indexes)
        async with in_process(settings, backends) as running:
            yield Node(running.container, running.workspace)

    @asynccontextmanager
    async def command(self, workspace: WorkspaceId, **indexes: VectorIndex) -> AsyncIterator[Node]:
        """A command, which need not be able to serve."""
        async with opened_container(*self._chosen(indexes)) as container:
            yield Node(container, workspace)

    def _chosen(self, indexes: dict[str, VectorIndex]) -> tuple[Settings, Backends]:
        settings = Settings(
            data_dir=self._folder / "data",
            database=DatabaseSettings(url=self._url),
            vector_index=VectorIndexSettings(name=next(iter(indexes))),
            job_queue=JobQueueSettings(upkeep_seconds=0.05),
        )
        return settings, Backends(self._embedder, {IndexName(name): index for name, index in indexes.items()})


@pytest.fixture
def installation(database_url: str, tmp_path: Path, embedder: MemoryFaceEmbedder) -> Installation:
    return Installation(database_url, tmp_path, embedder)


@pytest.fixture
async def node(installation: Installation, old: Watched, new: Watched) -> AsyncIterator[Node]:
    async with installation.node(old=old, new=new) as one:
        yield one


async def refused(*_: object) -> None:
    raise PortUnavailable("vector_index", "it cannot be reached")


async def slow(*_: object) -> None:
    await asyncio.sleep(0.05)


def refused_after(writes: int) -> Callable[[str, int], Awaitable[None]]:
    left = iter(range(writes))

    async def before(what: str, _number: int) -> None:
        if what == "upsert" and next(left, None) is None:
            await refused()

    return before


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await so():  # noqa: ASYNC110 - what is waited for happens in the database, which has no event
            await asyncio.sleep(0.05)


def of(moved: Moved) -> tuple[str, str | None, bool]:
    return moved.state.serving, moved.state.beside, moved.state.filled


@pytest.mark.usefixtures("known_sooner")
class TestMoving:
    async def test_a_move_there_and_back_changes_no_answer(self, node: Node, old: Watched, new: Watched) -> None:
        for name in ("ada", "ben"):
            await node.enrol(name)
        moved = await node.move(NEW)
        assert moved.done
        assert of(moved) == (NEW, OLD, True)
        assert moved.compared is not None
        assert moved.compared.decisions is not None
        assert (moved.references, moved.compared.decisions.probes, moved.compared.decisions.differing) == (2, 2, ())
        old.before = refused
        assert await node.found("ada") == ["ada"]
        old.before = None
        await node.enrol("eve")

        searched: list[Stage] = []
        back = await node.move(OLD, lambda stage, *_: searched.append(stage))
        assert of(back) == (OLD, NEW, True)
        assert searched == [Stage.SWITCH]
        new.before = refused
        assert [await node.found(name) for name in ("ada", "ben", "eve", "bob")] == [["ada"], ["ben"], ["eve"], []]

    async def test_what_answers_already_is_left_alone(self, node: Node) -> None:
        moved = await node.move(OLD)
        assert moved.done
        assert of(moved) == (OLD, None, False)

    async def test_what_the_new_index_holds_beside_the_record_is_removed(
        self, node: Node, new: Watched, embedder: MemoryFaceEmbedder
    ) -> None:
        ada = await node.enrol("ada")
        ghost = Entry(
            reference=ReferenceId(uuid4()),
            person=ada.person.id,
            gallery=ada.person.gallery,
            embedding=Embedding.normalised(np.ones(embedder.space.dimension), embedder.space.id),
        )
        await new.upsert([ghost])
        moved = await node.move(NEW)
        assert moved.done
        assert moved.compared is not None
        assert [report.superfluous for report in moved.compared.galleries.values()] == [(ghost.reference,)]
        assert (await node.report(NEW)).agrees

    async def test_an_index_that_loses_somebody_does_not_take_over(self, node: Node, new: Watched) -> None:
        lost = (await node.enrol("ada")).accepted[0].id
        await node.enrol("ben")
        new.loses = frozenset({lost})
        moved = await node.move(NEW)
        assert not moved.done
        assert of(moved) == (OLD, NEW, False)
        assert moved.compared is not None
        assert moved.compared.lasting == (lost,)
        assert await node.found("ada") == ["ada"]
        new.loses = frozenset()
        assert of(await node.move(NEW)) == (NEW, OLD, True)

    async def test_a_damaged_template_is_named_and_holds_nobody_up(self, node: Node) -> None:
        broken = (await node.enrol("ada")).accepted[0].id
        await node.enrol("ben")
        await node.execute(update(REFERENCES).where(REFERENCES.c.id == broken).values(template=b"damaged"))
        report = await node.report(OLD)
        assert (report.references, report.damaged, report.agrees) == (2, (broken,), True)
        result: SearchResult = await node.here(SearchFaces, frames=[MemoryFaceEmbedder.picture("ada")])
        assert result.faces[0].damaged == {broken}
        assert await node.found("ada") == []
        moved = await node.move(NEW)
        assert moved.done
        assert moved.compared is not None
        assert [one.damaged for one in moved.compared.galleries.values()] == [(broken,)]
        assert await node.found("ben") == ["ben"]

    async def test_galleries_of_models_that_are_not_served_here_stop_the_move_before_it_begins(
        self, node: Node
    ) -> None:
        await node.enrol("ada")
        await node.execute(text("UPDATE galleries SET space = 'another@1:0'"))
        moved = await node.move(NEW)
        assert not moved.done
        assert of(moved) == (OLD, None, False)
        named = {space: [gallery.name for gallery in some] for space, some in moved.unserved.items()}
        assert named == {"another@1:0": ["default"]}

    async def test_a_gallery_on_its_way_to_a_model_that_is_not_served_here_stops_it_too(self, node: Node) -> None:
        await node.enrol("ada")
        await node.execute(
            text(
                "INSERT INTO gallery_moves (workspace_id, gallery_id, source, target, job_id, asked_at)"
                " SELECT workspace_id, id, space, 'another@1:0', id, now() FROM galleries"
            )
        )
        moved = await node.move(NEW)
        assert set(moved.unserved) == {"another@1:0"}
        assert of(moved) == (OLD, None, False)

    async def test_a_gallery_without_anybody_stops_nothing(self, node: Node) -> None:
        await node.execute(text("UPDATE galleries SET space = 'another@1:0'"))
        assert of(await node.move(NEW)) == (NEW, OLD, True)

    async def test_a_gallery_that_comes_to_such_a_model_meanwhile_stops_the_switch(
        self, node: Node, new: Watched
    ) -> None:
        await node.enrol("ada")

        async def leave(what: str, _number: int) -> None:
            if what == "search":  # decisions are compared last
                await node.execute(text("UPDATE galleries SET space = 'another@1:0'"))

        new.before = leave
        moved = await node.move(NEW)
        assert not moved.done
        assert set(moved.unserved) == {"another@1:0"}
        assert of(moved) == (OLD, NEW, False)

    async def test_a_gallery_that_is_made_while_processes_do_not_know_yet_is_filled(
        self, node: Node, new: Watched
    ) -> None:
        making: list[asyncio.Task[None]] = []

        async def make() -> None:
            new.loses = Everything()
            await node.do(CreateGallery, workspace=node.workspace, name="late", policy=Policy())
            await node.enrol("ada", gallery="late")
            new.loses = frozenset()

        def told(stage: Stage, _done: int, _total: int) -> None:
            if stage is Stage.DECLARE:
                making.append(asyncio.create_task(make()))

        assert (await node.move(NEW, told)).done
        await asyncio.gather(*making)
        assert making
        assert await node.found("ada", gallery="late") == ["ada"]

    async def test_nothing_is_left_open(self, node: Node) -> None:
        await node.enrol("ada")
        left: list[str] = []
        before = sys.get_asyncgen_hooks()

        def finalised(generator: AsyncGenerator[object]) -> None:
            left.append(repr(generator))
            if before.finalizer is not None:
                before.finalizer(generator)

        sys.set_asyncgen_hooks(finalizer=finalised)
        try:
            assert (await node.move(NEW)).done
            gc.collect()
        finally:
            sys.set_asyncgen_hooks(*before)
        assert left == []

    async def test_an_index_without_settings_is_refused(self, node: Node) -> None:
        with pytest.raises(PortRejected, match="no settings"):
            await node.move(THIRD)

    async def test_a_third_index_waits_for_the_second(
        self, installation: Installation, old: Watched, new: Watched, embedder: MemoryFaceEmbedder
    ) -> None:
        async with installation.node(old=old, new=new, third=Watched(embedder.space)) as node:
            await node.enrol("ada")
            assert (await node.move(NEW)).done
            with pytest.raises(PortRejected, match="drop"):
                await node.move(THIRD)


@pytest.mark.usefixtures("known_sooner")
class TestInterruptions:
    async def test_a_move_goes_on_where_it_was(self, node: Node, new: Watched) -> None:
        for number in range(45):
            await node.enrol(f"person {number}", times=10)
        told: list[tuple[Stage, int, int]] = []
        new.before = refused_after(1)
        with pytest.raises(PortUnavailable):
            await node.move(NEW, lambda *said: told.append(said))
        shown = await node.shown()
        assert (shown.state.serving, shown.state.beside, shown.state.filled) == (OLD, NEW, False)
        assert (shown.walked, shown.references) == (AT_ONCE, 450)
        new.before = None
        assert of(await node.move(NEW, lambda *said: told.append(said))) == (NEW, OLD, True)
        assert new.written == 450
        filled = [(done, total) for stage, done, total in told if stage is Stage.FILL]
        assert filled == [(done, 450) for done in (0, AT_ONCE, AT_ONCE, 2 * AT_ONCE, 450)]

    async def test_while_the_new_index_is_down_faces_are_enrolled_and_found(self, node: Node, new: Watched) -> None:
        await node.enrol("ada")
        new.before = refused
        with pytest.raises(PortUnavailable):
            await node.move(NEW)
        ben = await node.enrol("ben")
        assert [one.searchable for one in ben.accepted] == [True]
        assert await node.found("ben") == ["ben"]

        async def noted() -> bool:
            return (await node.shown()).waiting == 1

        await until(noted)
        new.before = None
        assert of(await node.move(NEW)) == (NEW, OLD, True)
        assert await node.found("ben") == ["ben"]

    async def test_an_index_that_goes_after_the_comparison_does_not_take_over(self, node: Node, new: Watched) -> None:
        await node.enrol("ada")

        def told(stage: Stage, _done: int, _total: int) -> None:
            if stage is Stage.SWITCH:
                new.before = refused

        with pytest.raises(PortUnavailable):
            await node.move(NEW, told)
        assert (await node.shown()).state.serving == OLD
        assert await node.found("ada") == ["ada"]

    async def test_taking_it_back_first_brings_in_line_what_the_old_index_missed(
        self, node: Node, old: Watched
    ) -> None:
        await node.enrol("ada")
        await node.move(NEW)
        old.before = refused
        await node.enrol("ben")

        async def noted() -> bool:
            return (await node.shown()).waiting == 1

        await until(noted)
        with pytest.raises(PortUnavailable):
            await node.move(OLD)
        old.before = None
        assert of(await node.move(OLD)) == (OLD, NEW, True)
        assert await node.found("ben") == ["ben"]

    async def test_a_move_that_was_given_up_leaves_nothing(self, node: Node, new: Watched) -> None:
        ada = await node.enrol("ada")
        await node.enrol("ben")
        new.loses = frozenset({ada.accepted[0].id})
        assert not (await node.move(NEW)).done
        assert (await node.do(DropIndex, name=NEW)).set_up
        shown = await node.shown()
        assert (shown.state.serving, shown.state.beside, shown.walked) == (OLD, None, 0)
        assert len((await node.report(NEW)).missing) == 2
        new.before = refused
        await node.enrol("eve")
        assert await node.found("eve") == ["eve"]

    async def test_two_moves_at_once_end_in_one(self, node: Node) -> None:
        await node.enrol("ada")
        ended = await asyncio.gather(node.move(NEW), node.move(NEW), return_exceptions=True)
        assert all(isinstance(one, Moved | VersionMismatch) for one in ended)
        again = await node.move(NEW)
        assert of(again) == (NEW, OLD, True)
        assert (await node.report(NEW)).agrees


class Held:
    """Lets the first searches through, holds the next one, and whatever comes behind it."""

    def __init__(self, index: Watched, *, first: int) -> None:
        self._left = first
        self.begun, self.released = asyncio.Event(), asyncio.Event()
        self.refuses = False
        self._index = index
        index.before = self._before

    async def _before(self, what: str, _number: int) -> None:
        if what != "search":
            return
        self._left -= 1
        if self._left < 0:
            self._index.before = None  # the others go by: they are those of the move
            self.begun.set()
            await self.released.wait()
            if self.refuses:
                raise PortRejected("vector_index", "its storage is missing")


@pytest.mark.usefixtures("known_sooner")
class TestDropping:
    @pytest.mark.parametrize("refuses", [False, True], ids=["empty", "gone"])
    async def test_a_search_that_outlasts_the_index_it_began_on_is_made_again(
        self, node: Node, old: Watched, *, refuses: bool
    ) -> None:
        for name in ("ada", "ben"):
            await node.enrol(name)
        held = Held(old, first=1)
        searching = asyncio.create_task(node.found_together("ada", "ben", "eve"))
        await held.begun.wait()
        await node.move(NEW)
        await node.do(DropIndex, name=OLD)
        held.refuses = refuses
        held.released.set()
        assert await searching == [["ada"], ["ben"], []]

    async def test_a_search_between_which_the_index_changes_again_and_again_is_busy(self, node: Node) -> None:
        await node.enrol("ada")
        async with node.container(scope=Scope.REQUEST) as unit:
            search = replace(await unit.get(SearchFaces), states=Restless())
            with pytest.raises(PortBusy):
                await search(workspace=node.workspace, gallery="default", frames=[MemoryFaceEmbedder.picture("ada")])

    async def test_a_search_that_fails_for_another_reason_is_not_made_again(self, node: Node, old: Watched) -> None:
        await node.enrol("ada")
        asked: list[str] = []

        async def before(what: str, _number: int) -> None:
            asked.append(what)
            await refused()

        old.before = before
        with pytest.raises(PortUnavailable):
            await node.found("ada")
        assert asked == ["search"]

    async def test_what_is_dropped_holds_nothing_more_not_even_of_galleries_that_are_gone(
        self, installation: Installation, new: Watched, embedder: MemoryFaceEmbedder
    ) -> None:
        old = MemoryVectorIndex(embedder.space)
        async with installation.node(old=old, new=new) as node:
            await node.enrol("ada")
            await node.move(NEW)
            await old.upsert([ghost(embedder)])
            dropped = await node.do(DropIndex, name=OLD)
        assert dropped == Dropped(set_up=True, unserved={})
        assert dropped.emptied
        assert not old._entries

    async def test_what_cannot_be_dropped_at_once_is_cleared_and_said_to_keep_the_rest(
        self, node: Node, old: Watched, embedder: MemoryFaceEmbedder
    ) -> None:
        ada = await node.enrol("ada")
        left = ghost(embedder)
        await node.move(NEW)
        await old.upsert([left])
        dropped = await node.do(DropIndex, name=OLD)
        assert dropped.cleared == (embedder.space.id,)
        assert not dropped.emptied
        assert [entry async for entry in old.entries(ada.person.gallery)] == []
        assert [entry async for entry in old.entries(left.gallery)] == [left]

    async def test_what_it_holds_of_models_that_are_not_served_here_is_said_to_be_left(
        self, installation: Installation, new: Watched, embedder: MemoryFaceEmbedder
    ) -> None:
        async with installation.node(old=MemoryVectorIndex(embedder.space), new=new) as node:
            await node.enrol("ada")
            await node.move(NEW)
            await node.execute(text("UPDATE galleries SET space = 'another@1:0'"))
            dropped = await node.do(DropIndex, name=OLD)
        assert set(dropped.unserved) == {"another@1:0"}
        assert not dropped.emptied


@pytest.mark.usefixtures("known_sooner")
class TestBothAreWritten:
    async def test_an_index_that_is_away_keeps_a_removal_from_no_other(
        self, node: Node, old: Watched, new: Watched
    ) -> None:
        ada, ben = await node.enrol("ada"), await node.enrol("ben")
        await node.move(NEW)
        for gone, away, there in ((ada, new, old), (ben, old, new)):
            away.before = refused
            await node.here(DeletePerson, person=gone.person.id)
            held = {one.reference async for one in there.entries(gone.person.gallery)}
            assert gone.accepted[0].id not in held
            away.before = None

    @pytest.mark.parametrize("serving", [OLD, NEW])
    async def test_an_index_without_settings_keeps_a_removal_from_no_other(
        self, installation: Installation, old: Watched, new: Watched, serving: IndexName
    ) -> None:
        async with installation.node(old=old, new=new) as both:
            ada = await both.enrol("ada")
            await both.move(NEW)
            if serving == OLD:
                await both.move(OLD)
        async with installation.command(both.workspace, old=old) as one:
            await one.here(DeletePerson, person=ada.person.id)
        assert [entry async for entry in old.entries(ada.person.gallery)] == []

    async def test_what_the_index_that_answers_has_is_searchable_whatever_the_other_does(
        self, node: Node, new: Watched
    ) -> None:
        await node.move(NEW)
        await node.move(OLD)
        new.before = refused
        ada = await node.enrol("ada")
        assert [one.searchable for one in ada.accepted] == await node.searchable() == [True]
        new.before = None

        async def written() -> bool:
            return [one.reference async for one in new.entries(ada.person.gallery)] == [ada.accepted[0].id]

        await until(written)

    async def test_what_only_the_other_index_has_is_not_searchable(self, node: Node, old: Watched) -> None:
        await node.move(NEW)
        await node.move(OLD)
        old.before = refused
        ada = await node.enrol("ada")
        assert [one.searchable for one in ada.accepted] == await node.searchable() == [False]

    async def test_an_index_that_hangs_beside_holds_up_nobody(
        self, node: Node, new: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reconcile, "BESIDE_WITHIN", 0.05)
        ada = await node.enrol("ada")
        await node.move(NEW)
        await node.move(OLD)
        released = asyncio.Event()

        async def hang(*_: object) -> None:
            await released.wait()

        new.before = hang
        async with asyncio.timeout(30):
            ben = await node.enrol("ben")
            assert [one.searchable for one in ben.accepted] == [True]
            await node.here(DeletePerson, person=ada.person.id)
            assert [await node.found(name) for name in ("ada", "ben")] == [[], ["ben"]]
        new.before = None
        released.set()

        async def in_line() -> bool:
            return (await node.report(NEW)).agrees

        await until(in_line)

    async def test_what_was_not_taken_while_it_was_compared_is_waited_for_before_the_switch(
        self, node: Node, new: Watched
    ) -> None:
        await node.enrol("ada")
        enrolled: list[Enrolled] = []

        async def miss(what: str, _number: int) -> None:
            if what == "search" and not enrolled:  # decisions are compared last
                new.before = refused
                enrolled.append(await node.enrol("ben"))
                new.before = None

        new.before = miss
        assert (await node.move(NEW)).done
        assert enrolled
        assert await node.found("ben") == ["ben"]


class Restless(IndexStates):
    """Says that another command has just changed it."""

    def __init__(self) -> None:
        self._changed_at = datetime(2026, 1, 1, tzinfo=UTC)

    async def now(self, *, fresh: bool = False) -> IndexState:  # noqa: ARG002 - the port's
        self._changed_at += timedelta(seconds=1)
        return IndexState(serving=OLD, changed_at=self._changed_at)

    async def mark(self) -> Mark | None:
        raise NotImplementedError

    async def set_mark(self, state: IndexState, mark: Mark) -> bool:
        raise NotImplementedError


def ghost(embedder: MemoryFaceEmbedder) -> Entry:
    """A face of a gallery that nobody knows."""
    return Entry(
        reference=ReferenceId(uuid4()),
        person=PersonId(uuid4()),
        gallery=GalleryId(uuid4()),
        embedding=Embedding.normalised(np.ones(embedder.space.dimension), embedder.space.id),
    )


class TestAnotherNode:
    async def test_the_new_index_alone_is_enough(self, installation: Installation, old: Watched, new: Watched) -> None:
        async with installation.node(old=old) as before:
            await before.enrol("ada")
        async with installation.command(before.workspace, new=new) as command:
            moved = await command.move(NEW)
            assert of(moved) == (NEW, None, False)
            assert moved.compared is not None
            assert moved.compared.decisions is None
        async with installation.node(new=new) as node:
            assert await node.found("ada") == ["ada"]
            ben = await node.enrol("ben")
            assert [one.searchable for one in ben.accepted] == [True]

    async def test_dropping_what_is_not_set_up_ends_it_all_the_same(
        self, installation: Installation, old: Watched, new: Watched
    ) -> None:
        async with installation.node(old=old, new=new) as both:
            await both.enrol("ada")
            await both.move(NEW)
        async with installation.node(new=new) as node:
            assert await node.do(DropIndex, name=OLD) == Dropped(set_up=False, unserved={})
            assert (await node.shown()).state.beside is None
            with pytest.raises(PortRejected, match="set up"):
                await node.do(DropIndex, name=OLD)

    async def test_nodes_agree_before_during_and_after(
        self, installation: Installation, old: Watched, new: Watched
    ) -> None:
        async with installation.node(old=old, new=new) as one, installation.node(old=old, new=new) as other:
            nodes = one, other
            stopped = asyncio.Event()
            rounds_of = dict.fromkeys(range(3), 0)

            async def come_and_go(number: int) -> None:
                rounds = 0
                resident = f"resident {number}"
                await one.enrol(resident)
                while not stopped.is_set():
                    name = f"{number} {rounds}"
                    made = await nodes[rounds % 2].enrol(name)
                    assert [one.searchable for one in made.accepted] == [True]
                    together = resident, name, f"stranger {number}"
                    assert [await node.found_together(*together) for node in nodes] == [[[resident], [name], []]] * 2
                    if rounds % 3:
                        await nodes[(rounds + 1) % 2].here(DeletePerson, person=made.person.id)
                        assert [await node.found(name) for node in nodes] == [[], []]
                    rounds += 1
                    rounds_of[number] = rounds

            async def everybody_goes_round() -> None:
                since = dict(rounds_of)
                async with asyncio.timeout(60.0):
                    while any(rounds_of[number] == since[number] for number in since):  # noqa: ASYNC110 - they have no event
                        await asyncio.sleep(0.01)

            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(come_and_go(number))
                await everybody_goes_round()
                await one.move(NEW)
                await everybody_goes_round()
                await one.move(OLD)
                await everybody_goes_round()
                # Somebody is in the middle of a picture until the index that they search is long dropped.
                held = Held(old, first=1)
                await held.begun.wait()
                new.before = old.before = slow
                await other.move(NEW)
                await other.do(DropIndex, name=OLD)
                held.released.set()
                await everybody_goes_round()
                stopped.set()
            assert min(rounds_of.values()) > 3
            report = await other.report(NEW)
            assert report.agrees
            assert report.references > 0
            assert [entry async for entry in old.entries(await gallery_of(one))] == []

    async def test_what_answers_cannot_be_dropped(self, node: Node) -> None:
        with pytest.raises(PortRejected, match="answers searches"):
            await node.do(DropIndex, name=OLD)


async def gallery_of(node: Node) -> GalleryId:
    return (await (await node.container.get(Record)).gallery(node.workspace, "default")).id


async def somebody_waits(node: Node) -> bool:
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with node.container(scope=Scope.REQUEST) as unit:
        return bool((await (await unit.get(SqlConnection)).execute(text(waiting))).all())


@pytest.mark.usefixtures("known_sooner")
class TestQdrant:
    async def test_pgvector_and_qdrant_take_over_from_each_other(
        self, installation: Installation, embedder: MemoryFaceEmbedder, database_url: str
    ) -> None:
        pool = engine(database_url, connections=4, timeout=10.0, autocommit=True)
        pgvector = PgvectorVectorIndex(pool, embedder.space)
        await pgvector.prepare()
        async with (
            open_qdrant(embedder.space) as qdrant,
            installation.node(pgvector=pgvector, qdrant=qdrant) as node,
        ):
            for number in range(12):
                await node.enrol(f"person {number}", times=3)
            for to in ("qdrant", "pgvector", "qdrant"):
                moved = await node.move(IndexName(to))
                assert moved.done
                made = await node.enrol(f"came with {to}")
                await node.here(DeletePerson, person=made.person.id)
                assert await node.found(f"came with {to}") == []
                assert [await node.found(f"person {number}") for number in range(12)] == [
                    [f"person {number}"] for number in range(12)
                ]
                assert [(await node.report(IndexName(name))).agrees for name in ("pgvector", "qdrant")] == [True, True]
            assert (await node.do(DropIndex, name=IndexName("pgvector"))).emptied
            with pytest.raises(PortRejected, match="missing"):
                await node.report(IndexName("pgvector"))
        await pool.dispose()


@pytest.mark.usefixtures("known_sooner")
class TestWriting:
    async def test_who_is_deleted_while_they_are_written_is_not_in_the_new_index(
        self, node: Node, new: Watched
    ) -> None:
        ada = await node.enrol("ada")
        deleting: list[asyncio.Task[Any]] = []

        async def delete(what: str, _number: int) -> None:
            if what == "upsert" and not deleting:
                deleting.append(asyncio.create_task(node.here(DeletePerson, person=ada.person.id)))
                await until(lambda: somebody_waits(node))

        new.before = delete
        moved = await node.move(NEW)
        await asyncio.gather(*deleting)
        assert deleting
        assert moved.done
        assert await node.found("ada") == []
        report = await node.report(NEW)
        assert (report.references, report.agrees) == (0, True)

    async def test_a_note_that_was_there_before_is_there_afterwards(
        self, node: Node, old: Watched, new: Watched
    ) -> None:
        old.before = refused
        ada = await node.enrol("ada")
        gallery = await (await node.container.get(Record)).gallery(node.workspace, "default")
        await node.do(WriteIndex, gallery=gallery, references=[ada.accepted[0].id], to=NEW)
        assert new.written == 1
        old.before = None

        async def searchable() -> bool:
            try:
                return await node.found("ada") == ["ada"]
            except PortUnavailable:  # the index that answers holds nobody yet
                return False

        await until(searchable)


@pytest.mark.usefixtures("known_sooner")
class TestAudit:
    async def test_what_is_done_with_an_index_is_written_down(self, node: Node, database: Database) -> None:
        await node.enrol("ada")
        await node.move(NEW)
        await node.do(DropIndex, name=OLD)
        await node.here(RebuildIndex)
        asked = "SELECT action, details FROM audit_entries WHERE action LIKE 'index.%' ORDER BY at"
        async with database.reads.connect() as connection:
            found = (await connection.execute(text(asked))).all()
        assert [(one.action, one.details) for one in found] == [
            ("index.migrated", {"stage": "begun", "index": NEW}),
            ("index.migrated", {"stage": "switched", "index": NEW}),
            ("index.dropped", {"stage": "left", "index": OLD}),
            ("index.dropped", {"stage": "emptied", "index": OLD}),
            ("index.rebuilt", {"references": 1, "waiting": 0}),
        ]

    async def test_a_change_that_cannot_be_written_down_is_none(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = SqlAuditTrail.write

        async def gone(self: SqlAuditTrail) -> None:
            if any(one.event.action.startswith("index.") for one in self._noted):
                raise PortUnavailable("database", "gone")
            await write(self)

        with monkeypatch.context() as patched:
            patched.setattr(SqlAuditTrail, "write", gone)
            with pytest.raises(PortUnavailable):
                await node.move(NEW)
            assert (await node.shown()).state.beside is None
        await node.move(NEW)
        with monkeypatch.context() as patched:
            patched.setattr(SqlAuditTrail, "write", gone)
            with pytest.raises(PortUnavailable):
                await node.do(DropIndex, name=OLD)
        assert (await node.shown()).state.beside == OLD


class TestStates:
    async def test_a_mark_holds_until_the_state_changes(self, node: Node) -> None:
        states = await node.container.get(IndexStates)
        ada = await node.enrol("ada")
        before = await states.now()
        mark = Mark(gallery=ada.person.gallery, reference=ada.accepted[0].id, references=1)
        assert await states.set_mark(before, mark)
        assert await states.mark() == mark
        after = replace(before, beside=NEW)
        assert not await states.set_mark(after, mark)
        async with node.container(scope=Scope.REQUEST) as unit:
            changes = await unit.get(IndexStateChanges)
            assert await changes.change(before, after)
            await (await unit.get(Transaction)).commit()
            assert await states.mark() is None
            assert not await changes.change(before, IndexState(serving=NEW, changed_at=before.changed_at))
        assert await states.now() == after
