import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import pytest
from dishka import AsyncContainer, Scope, provide
from sqlalchemy import text, update

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import REFERENCES
from application.ports.cipher import Cipher
from application.ports.errors import PortUnavailable
from application.ports.repositories import (
    GalleryRepository,
    PersonRepository,
    ReconciliationRepository,
    ReferenceRepository,
)
from application.ports.vector_index import Entry
from application.use_cases.galleries.create_gallery import CreateGallery
from application.use_cases.galleries.update_gallery import UpdateGallery
from application.use_cases.matching.search_faces import SearchFaces, SearchResult
from application.use_cases.matching.verify_face import VerifyFace
from application.use_cases.people.create_person import CreatePerson
from application.use_cases.people.delete_person import DeletePerson
from application.use_cases.people.get_person import GetPerson
from application.use_cases.people.list_people import ListPeople
from application.use_cases.people.merge_people import MergePeople
from application.use_cases.people.unmerge_people import UnmergePeople
from application.use_cases.references.delete_reference import DeleteReference
from application.use_cases.references.enrol_batch import EnrolBatch, EnrolmentItem
from application.use_cases.references.enrol_references import Enrolled, EnrolReferences, SentImage
from application.use_cases.references.list_references import ListReferences
from application.use_cases.references.places import template_place
from application.use_cases.references.read_image import ReadImage
from application.use_cases.references.reconcile import Reconcile, Reconciled
from application.use_cases.upkeep.mend_index import MendIndex
from application.use_cases.upkeep.rebuild_index import RebuildIndex, Rebuilt
from application.use_cases.upkeep.verify_index import IndexReport, VerifyIndex
from domain.calibration import Calibration, CalibrationPoint, Evidence
from domain.decision import Outcome
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from domain.errors import (
    ExternalIdTaken,
    FaceNotFound,
    FacepassError,
    MultipleFaces,
    PersonMerged,
    PersonNotFound,
    SpaceMismatch,
    VersionMismatch,
)
from domain.gallery import Policy
from domain.person import Person, PersonId
from domain.quality import Reason
from domain.workspace import WorkspaceId
from entrypoints.settings import DatabaseSettings, Settings
from tests.conftest import another_database
from tests.e2e.in_process import InProcess, StandIns, in_process
from tests.e2e.signed_in import another_workspace

T = TypeVar("T")
GALLERY = "default"
ADA, BEN, EVE = (MemoryFaceEmbedder.picture(name) for name in ("ada", "ben", "eve"))

CURVE = Calibration(
    points=tuple(
        CalibrationPoint(
            threshold=threshold,
            false_match_rate=rate,
            false_match_rate_low=rate / 2,
            false_match_rate_high=rate * 2,
            false_non_match_rate=miss,
        )
        for threshold, rate, miss in ((0.0, 0.5, 0.0), (0.5, 1e-2, 0.01), (0.7, 1e-3, 0.05), (0.9, 1e-7, 0.2))
    ),
    evidence=Evidence(
        source="made up",
        people=100,
        images=1000,
        genuine_pairs=10_000,
        impostor_pairs=10**9,
        measured_on=date(2026, 1, 1),
    ),
)


class MadeUp(StandIns):
    """Memory backends, with a curve for the memory embedder's space."""

    @provide(override=True)
    def its_calibration(self) -> Calibration:
        return CURVE


@dataclass(frozen=True, slots=True)
class Core:
    """The use cases over a real database, each call in a unit of work of its own."""

    container: AsyncContainer
    workspace: WorkspaceId
    backends: StandIns

    @asynccontextmanager
    async def ready(self, kind: type[T]) -> AsyncIterator[T]:
        async with self.container(scope=Scope.REQUEST) as unit:
            yield await unit.get(kind)

    async def do(self, kind: type[Any], **values: Any) -> Any:  # noqa: ANN401 - any use case
        async with self.ready(kind) as use_case:
            return await use_case(workspace=self.workspace, **{"gallery": GALLERY, **values})

    async def enrol(self, *pictures: bytes, **values: Any) -> Enrolled:  # noqa: ANN401 - a use case's values
        enrolled: Enrolled = await self.do(
            EnrolReferences, images=[SentImage(content=picture) for picture in pictures], **values
        )
        return enrolled

    async def person(self, external_id: str | None = None) -> Person:
        made: Person = await self.do(CreatePerson, external_id=external_id, metadata={})
        return made

    async def found(self, picture: bytes) -> list[PersonId]:
        result: SearchResult = await self.do(SearchFaces, frames=[picture])
        return [one.best.person for one in result.faces[0].candidates]

    async def agreement(self) -> IndexReport:
        report: IndexReport = await self.do(VerifyIndex)
        return report

    async def people(self) -> list[Person]:
        return list((await self.do(ListPeople, limit=100, after=None)).items)

    async def references(self) -> list[Any]:
        return list((await self.do(ListReferences, limit=100, after=None)).items)

    async def reconcile(self, *references: ReferenceId) -> Reconciled:
        async with self.ready(Reconcile) as reconcile:
            return await reconcile(workspace=self.workspace, references=references)

    async def due(self, **later: float) -> list[ReferenceId]:
        async with self.ready(ReconciliationRepository) as notes:
            due = await notes.due(datetime.now(UTC) + timedelta(**later), limit=1000)
        return [reference for workspace, reference in due if workspace == self.workspace]

    async def images(self) -> list[str]:
        return [key async for key in self.backends.blobs.keys(f"images/{self.workspace}/")]

    async def execute(self, statement: str) -> None:
        async with self.ready(SqlConnection) as connection:
            await connection.execute(text(statement))
            await connection.commit()

    async def reseal(self, reference: ReferenceId, template: bytes) -> None:
        async with self.ready(SqlConnection) as connection:
            await connection.execute(update(REFERENCES).where(REFERENCES.c.id == reference).values(template=template))
            await connection.commit()

    async def somebody_waits(self) -> bool:
        waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with self.ready(SqlConnection) as connection:
            return bool((await connection.execute(text(waiting))).all())


@pytest.fixture(scope="module")
async def _running(
    postgres_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcess]:
    async with (
        another_database(postgres_url, migrated_url) as url,
        in_process(settings_of(url, tmp_path_factory.mktemp("core")), MadeUp(MemoryFaceEmbedder()), work=False) as one,
    ):
        yield one


@pytest.fixture
async def core(_running: InProcess) -> AsyncIterator[Core]:
    """One for all, in another workspace each time."""
    backends = _running.backends
    yield Core(_running.container, await another_workspace(_running.container), backends)
    backends.index.down, backends.index.before_upsert, backends.blobs.after_put = False, None, None


@pytest.fixture
async def own_core(database_url: str, tmp_path: Path) -> AsyncIterator[Core]:
    """One over a database and backends of its own."""
    async with in_process(settings_of(database_url, tmp_path), MadeUp(MemoryFaceEmbedder()), work=False) as running:
        yield Core(running.container, running.workspace, running.backends)


def settings_of(url: str, folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", database=DatabaseSettings(url=url))


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """What became of calls made at once: results, or errors of the core. Anything else is raised."""
    ended = await asyncio.gather(*calls, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException) and not isinstance(one, FacepassError):
            raise one
    return ended


class TestEnrolment:
    async def test_a_face_is_found_and_verified_as_its_person(self, core: Core) -> None:
        ada = (await core.enrol(ADA, external_id="ada")).person
        assert await core.found(MemoryFaceEmbedder.picture("ada", variation=0.2)) == [ada.id]
        assert await core.found(BEN) == []
        verified = await core.do(VerifyFace, frames=[ADA], claimed="ada")
        assert verified.decision.outcome is Outcome.MATCH

    async def test_each_refused_image_says_why(self, core: Core) -> None:
        dark = MemoryFaceEmbedder.picture("ada", reasons=[Reason.TOO_DARK])
        enrolled = await core.enrol(ADA, dark, MemoryFaceEmbedder.group(["ada", "ben"]), MemoryFaceEmbedder.group([]))
        assert [(one.index, one.code) for one in enrolled.rejected] == [
            (1, "too_dark"),
            (2, "multiple_faces"),
            (3, "face_not_found"),
        ]
        assert len(enrolled.accepted) == 1

    async def test_a_policy_that_refuses_no_reason_takes_a_dark_face(self, core: Core) -> None:
        await core.do(UpdateGallery, policy=Policy(refused_reasons=frozenset()))
        enrolled = await core.enrol(MemoryFaceEmbedder.picture("ada", reasons=[Reason.TOO_DARK]))
        assert enrolled.accepted[0].quality.reasons == (Reason.TOO_DARK,)

    @pytest.mark.parametrize(
        ("picture", "error"),
        [(MemoryFaceEmbedder.group(["ada", "ben"]), MultipleFaces), (MemoryFaceEmbedder.group([]), FaceNotFound)],
    )
    async def test_a_single_image_that_is_refused_makes_nobody(
        self, core: Core, picture: bytes, error: type[FacepassError]
    ) -> None:
        with pytest.raises(error):
            await core.enrol(picture, external_id="ada")
        assert await core.people() == []

    async def test_enrolments_of_a_new_name_at_once_make_one_person(self, core: Core) -> None:
        ended = await outcomes(*(core.enrol(ADA, external_id="ada") for _ in range(8)))
        assert len({one.person.id for one in ended}) == 1
        assert len(await core.people()) == 1
        assert len(await core.references()) == 8
        assert (await core.agreement()).agrees

    async def test_a_batch_with_one_name_many_times_makes_one_person(self, core: Core) -> None:
        items = [EnrolmentItem(images=(SentImage(content=ADA),), external_id="ada") for _ in range(10)]
        ended = await core.do(EnrolBatch, items=items)
        assert len({one.person.id for one in ended}) == 1
        assert len(await core.references()) == 10

    async def test_a_gallery_of_another_space_takes_and_searches_nothing(
        self, own_core: Core, database_url: str, tmp_path: Path
    ) -> None:
        await own_core.enrol(ADA, external_id="ada")
        other = MadeUp(MemoryFaceEmbedder(model="other@1"))
        async with in_process(settings_of(database_url, tmp_path), other, work=False) as running:
            newer = Core(running.container, running.workspace, running.backends)
            for call in (newer.enrol(ADA), newer.found(ADA), newer.do(VerifyFace, frames=[ADA], claimed="ada")):
                with pytest.raises(SpaceMismatch):
                    await call
            async with newer.ready(CreateGallery) as create:
                fresh = await create(workspace=newer.workspace, name="fresh", policy=Policy())
            assert (await newer.enrol(ADA, gallery="fresh")).person.gallery == fresh.id


class TestRaces:
    async def test_a_person_deleted_while_faces_are_enrolled_is_gone_or_there_as_a_whole(self, core: Core) -> None:
        for _ in range(5):
            ada = (await core.enrol(ADA, external_id="ada")).person
            ended = await outcomes(
                *(core.enrol(ADA, person=ada.id) for _ in range(4)), core.do(DeletePerson, person=ada.id)
            )
            assert all(isinstance(one, Enrolled | PersonNotFound) or one is None for one in ended)
            assert await core.people() == await core.references() == []
            assert await core.found(ADA) == []
            assert (await core.agreement()).agrees
            assert await core.images() == []

    async def test_two_people_merged_into_each_other_at_once_end_as_one(self, core: Core) -> None:
        for turn in range(5):
            ada = (await core.enrol(ADA, external_id=f"ada-{turn}")).person
            ben = (await core.enrol(BEN, external_id=f"ben-{turn}")).person
            ended = await outcomes(
                core.do(MergePeople, source=ada.id, target=ben.id), core.do(MergePeople, source=ben.id, target=ada.id)
            )
            (survivor,) = [one for one in ended if isinstance(one, Person)]
            (refused,) = [one for one in ended if not isinstance(one, Person)]
            assert isinstance(refused, PersonMerged | VersionMismatch)
            assert await core.found(ADA) == await core.found(BEN) == [survivor.id]
            await core.do(DeletePerson, person=survivor.id)

    async def test_a_face_enrolled_during_a_merge_is_not_lost(self, core: Core) -> None:
        for turn in range(5):
            kept, gone = await core.person(f"kept-{turn}"), await core.person(f"gone-{turn}")
            ended = await outcomes(
                core.enrol(EVE, person=gone.id), core.do(MergePeople, source=gone.id, target=kept.id)
            )
            enrolled = isinstance(ended[0], Enrolled)
            assert isinstance(ended[1], Person)
            found = await core.found(EVE)
            # Whoever has the face is somebody: the survivor, where it came in time.
            assert found == ([kept.id] if enrolled else [])
            assert (await core.agreement()).agrees
            await core.do(DeletePerson, person=kept.id)

    async def test_of_changes_at_once_to_one_version_one_is_made(self, core: Core) -> None:
        await core.do(UpdateGallery, policy=Policy(), version=1)
        ended = await outcomes(*(core.do(UpdateGallery, policy=Policy(), version=2) for _ in range(5)))
        assert sum(isinstance(one, VersionMismatch) for one in ended) == 4

    async def test_of_people_made_at_once_with_one_name_one_is_made(self, core: Core) -> None:
        ended = await outcomes(*(core.person("ada") for _ in range(5)))
        assert sum(isinstance(one, ExternalIdTaken) for one in ended) == 4

    async def test_a_reference_deleted_twice_at_once_is_deleted_once(self, core: Core) -> None:
        made = (await core.enrol(ADA)).accepted[0]
        ended = await outcomes(*(core.do(DeleteReference, reference=made.id) for _ in range(4)))
        assert ended.count(None) == 1
        assert (await core.agreement()).agrees


class TestMerging:
    async def test_nobody_is_merged_twice(self, core: Core) -> None:
        ada, ben, eve = [(await core.enrol(picture)).person for picture in (ADA, BEN, EVE)]
        await core.do(MergePeople, source=ben.id, target=ada.id)
        with pytest.raises(PersonMerged):
            await core.do(MergePeople, source=ben.id, target=eve.id)
        await core.do(UnmergePeople, source=ben.id, target=ada.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[ada.id], [ben.id], [eve.id]]
        assert (await core.do(GetPerson, person=ben.id)).person.merged_into is None

    async def test_a_merge_of_a_merge_is_undone_step_by_step(self, core: Core) -> None:
        ada, ben, eve = [(await core.enrol(picture)).person for picture in (ADA, BEN, EVE)]
        await core.do(MergePeople, source=ada.id, target=ben.id)
        await core.do(MergePeople, source=ben.id, target=eve.id)
        with pytest.raises(PersonMerged):  # her faces are not there to be given back
            await core.do(UnmergePeople, source=ada.id, target=ben.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[eve.id]] * 3
        await core.do(UnmergePeople, source=ben.id, target=eve.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[ben.id], [ben.id], [eve.id]]
        await core.do(UnmergePeople, source=ada.id, target=ben.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[ada.id], [ben.id], [eve.id]]
        await core.do(DeletePerson, person=ada.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[], [ben.id], [eve.id]]
        assert len(await core.images()) == 2
        assert (await core.agreement()).agrees

    async def test_faces_of_three_people_follow_two_merges(self, core: Core) -> None:
        ada, ben, eve = [(await core.enrol(picture)).person for picture in (ADA, BEN, EVE)]
        await core.do(MergePeople, source=ben.id, target=ada.id)
        await core.do(MergePeople, source=ada.id, target=eve.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[eve.id]] * 3
        await core.do(DeletePerson, person=eve.id)
        assert await core.references() == []
        assert await core.images() == []
        assert (await core.agreement()).agrees


class TestIndex:
    async def test_what_differs_is_named(self, core: Core) -> None:
        index, space = core.backends.index, core.backends.embedder.space
        ada, ben = [(await core.enrol(picture)).accepted[0] for picture in (ADA, BEN)]
        eve = (await core.enrol(EVE)).accepted[0]
        entries = {entry.reference: entry async for entry in index.entries(ada.gallery)}
        await index.remove([ada.id])
        swapped = Entry(reference=ben.id, person=ben.person, gallery=ben.gallery, embedding=entries[eve.id].embedding)
        await index.upsert([swapped])
        await core.do(DeletePerson, person=eve.person)
        await index.upsert([entries[eve.id]])
        report = await core.agreement()
        assert space.id == ada.space
        assert (report.references, report.missing, report.superfluous, report.different) == (
            2,
            (ada.id,),
            (eve.id,),
            (ben.id,),
        )
        # What the index alone has is nobody: the record decides.
        assert await core.found(EVE) == []

    async def test_a_rebuilt_index_decides_as_before(self, core: Core) -> None:
        pictures = [MemoryFaceEmbedder.picture(f"person {number}") for number in range(20)]
        for picture in pictures:
            await core.enrol(picture)
        before = [await core.found(picture) for picture in pictures]
        await core.backends.index.clear((await core.references())[0].gallery)
        with pytest.raises(PortUnavailable, match="holds nobody"):
            await core.found(pictures[0])
        assert await core.do(RebuildIndex) == Rebuilt(references=20, waiting=0)
        assert [await core.found(picture) for picture in pictures] == before
        assert (await core.agreement()).agrees

    async def test_an_empty_gallery_is_no_outage(self, core: Core) -> None:
        assert await core.found(ADA) == []
        enrolled = await core.enrol(ADA)
        await core.do(DeletePerson, person=enrolled.person.id)
        assert await core.found(ADA) == []

    async def test_searches_find_everybody_while_an_index_is_rebuilt(self, core: Core) -> None:
        ada = (await core.enrol(ADA)).person
        found: list[list[PersonId]] = []

        async def search() -> None:
            found.append(await core.found(ADA))

        core.backends.index.before_upsert = search
        await core.do(RebuildIndex)
        assert found == [[ada.id]]

    async def test_a_rebuild_brings_back_nobody_who_is_deleted_meanwhile(self, core: Core) -> None:
        ada = (await core.enrol(ADA)).person
        deletions: list[asyncio.Task[None]] = []

        async def delete() -> None:
            deletions.append(asyncio.create_task(core.do(DeletePerson, person=ada.id)))
            async with asyncio.timeout(30.0):
                while not (deletions[0].done() or await core.somebody_waits()):  # noqa: ASYNC110 - it is in PostgreSQL
                    await asyncio.sleep(0.01)

        core.backends.index.before_upsert = delete
        await core.do(RebuildIndex)
        await asyncio.gather(*deletions)
        assert (await core.agreement()) == IndexReport(references=0, missing=(), superfluous=(), different=())

    @pytest.mark.parametrize("way", ["rebuilt", "mended"])
    async def test_what_differs_is_put_right(self, core: Core, way: str) -> None:
        index = core.backends.index
        ada, ben, eve = [(await core.enrol(picture)).accepted[0] for picture in (ADA, BEN, EVE)]
        entries = {entry.reference: entry async for entry in index.entries(ada.gallery)}
        await core.do(DeletePerson, person=eve.person)
        await index.remove([ada.id])
        await index.upsert([replace(entries[ben.id], person=ada.person), entries[eve.id]])
        report = await core.agreement()
        assert (report.missing, report.superfluous, report.different) == ((ada.id,), (eve.id,), (ben.id,))
        if way == "rebuilt":
            assert await core.do(RebuildIndex) == Rebuilt(references=2, waiting=0)
        else:
            differing = [*report.missing, *report.superfluous, *report.different]
            assert await core.do(MendIndex, references=differing) == 0
        assert (await core.agreement()).agrees
        assert await core.due() == []

    async def test_a_rebuild_counts_what_could_not_be_written_and_leaves_it_noted(self, core: Core) -> None:
        ada, _ = [(await core.enrol(picture)).accepted[0] for picture in (ADA, BEN)]
        await core.reseal(ada.id, b"damaged")
        assert await core.do(RebuildIndex) == Rebuilt(references=1, waiting=1)
        assert await core.due(minutes=1) == [ada.id]

    async def test_deleted_people_in_the_index_do_not_crowd_out_the_living(self, core: Core) -> None:
        index = core.backends.index
        ada = (await core.enrol(ADA)).accepted[0]
        [entry] = [entry async for entry in index.entries(ada.gallery)]
        # As near as she is, and before her: ties go by the id.
        gone = [replace(entry, reference=ReferenceId(UUID(int=n)), person=PersonId(UUID(int=n))) for n in range(50)]
        await index.upsert(gone)
        assert await core.found(ADA) == [ada.person]

    async def test_deleted_references_in_the_index_do_not_crowd_out_those_that_are_left(self, core: Core) -> None:
        index = core.backends.index
        ada = (await core.enrol(ADA)).accepted[0]
        [entry] = [entry async for entry in index.entries(ada.gallery)]
        await index.upsert([replace(entry, reference=ReferenceId(UUID(int=number))) for number in range(50)])
        assert await core.found(ADA) == [ada.person]


class TestReconciling:
    @pytest.fixture
    def core(self, own_core: Core) -> Core:
        """Its notes are changed as a whole."""
        return own_core

    async def test_a_reference_that_does_not_open_holds_up_no_other(self, core: Core) -> None:
        core.backends.index.down = True
        ada, ben = [(await core.enrol(picture)).accepted[0] for picture in (ADA, BEN)]
        core.backends.index.down = False
        await core.reseal(ada.id, b"damaged")
        assert (await core.reconcile(ada.id, ben.id)).behind == {ada.id}
        assert await core.found(BEN) == [ben.person]
        assert await core.due() == []
        assert await core.due(minutes=1) == [ada.id]

    async def test_a_reference_that_the_index_refuses_holds_up_no_other(self, core: Core) -> None:
        core.backends.index.down = True
        ada, ben = [(await core.enrol(picture)).accepted[0] for picture in (ADA, BEN)]
        core.backends.index.down = False
        short = Embedding(np.array([1.0, 0.0]), ada.space).to_bytes()
        async with core.container(scope=Scope.REQUEST) as unit:
            key = await (await unit.get(ReferenceRepository)).key_of(core.workspace, ada.person)
            sealed = (await unit.get(Cipher)).seal(short, key=key, place=template_place(core.workspace, ada.id))
        await core.reseal(ada.id, sealed)
        assert (await core.reconcile(ada.id, ben.id)).behind == {ada.id}
        assert await core.found(BEN) == [ben.person]

    async def test_a_reference_that_failed_a_thousand_times_is_tried_again(self, core: Core) -> None:
        core.backends.index.down = True
        ada = (await core.enrol(ADA)).accepted[0]
        await core.execute("UPDATE reconciliations SET attempts = 1000")
        assert (await core.reconcile(ada.id)).behind == {ada.id}
        assert await core.due(minutes=4) == []
        assert await core.due(minutes=5) == [ada.id]
        core.backends.index.down = False
        assert (await core.reconcile(ada.id)).behind == frozenset()

    async def test_a_reference_that_another_process_reconciles_is_not_said_to_be_in_line(self, core: Core) -> None:
        core.backends.index.down = True
        ada = (await core.enrol(ADA)).accepted[0]
        core.backends.index.down = False
        async with core.ready(ReconciliationRepository) as other:
            await other.lock(core.workspace, [ada.id])
            assert (await core.reconcile(ada.id)).behind == {ada.id}
        assert (await core.reconcile(ada.id)).behind == frozenset()
        assert (await core.reconcile(ada.id)).behind == frozenset()

    async def test_what_is_committed_is_not_answered_as_an_error(self, core: Core) -> None:
        kept, merged, gone = [(await core.enrol(picture)).person for picture in (ADA, BEN, EVE)]
        await core.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$"
        )
        await core.execute(
            "CREATE TRIGGER full_disk BEFORE DELETE ON reconciliations FOR EACH ROW EXECUTE FUNCTION full_disk()"
        )
        enrolled = await core.enrol(ADA, person=kept.id)
        await core.do(MergePeople, source=merged.id, target=kept.id)
        await core.do(UnmergePeople, source=merged.id, target=kept.id)
        await core.do(DeleteReference, reference=(await core.references())[0].id)
        await core.do(DeletePerson, person=gone.id)
        await core.execute("DROP TRIGGER full_disk ON reconciliations")
        assert [one.searchable for one in enrolled.accepted] == [False]
        waiting = await core.due(minutes=1)
        assert len(waiting) == 4
        assert (await core.reconcile(*waiting)).behind == frozenset()
        assert {one.person for one in await core.references()} == {kept.id, merged.id}
        assert len(await core.images()) == 2
        assert (await core.agreement()).agrees

    async def test_an_image_is_kept_where_an_hour_passes_before_its_commit(self, core: Core) -> None:
        async def an_hour_later() -> None:
            await core.reconcile(*await core.due(hours=2))

        core.backends.blobs.after_put = an_hour_later
        enrolled = await core.enrol(ADA, BEN)
        for reference, picture in zip(enrolled.accepted, (ADA, BEN), strict=True):
            assert (await core.do(ReadImage, reference=reference.id)).content == picture

    async def test_a_face_of_another_space_is_forgotten_when_that_is_served_again(
        self, core: Core, database_url: str, tmp_path: Path
    ) -> None:
        ada = (await core.enrol(ADA)).accepted[0]
        other = MadeUp(MemoryFaceEmbedder(model="other@1"), core.backends.blobs)
        async with in_process(settings_of(database_url, tmp_path), other, work=False) as running:
            newer = Core(running.container, running.workspace, running.backends)
            await newer.do(DeletePerson, person=ada.person)
            assert await newer.images() == []
            assert await newer.due(minutes=59) == []
        assert (await core.agreement()).superfluous == (ada.id,)
        assert await core.due(hours=1) == [ada.id]
        assert (await core.reconcile(ada.id)).behind == frozenset()
        assert (await core.agreement()).agrees


async def test_a_person_is_shown_beside_a_call_that_changes_them(core: Core) -> None:
    ada = await core.person("ada")
    async with core.container(scope=Scope.REQUEST) as unit, asyncio.timeout(30.0):
        gallery = await (await unit.get(GalleryRepository)).get(core.workspace, GALLERY)
        await (await unit.get(PersonRepository)).get(core.workspace, gallery.id, ada.id)
        assert (await core.do(GetPerson, person=ada.id)).person == ada
