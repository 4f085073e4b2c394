import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dishka import AsyncContainer, Scope, provide

from adapters.face_embedder.memory import MemoryFaceEmbedder
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
from application.use_cases.upkeep.rebuild_index import RebuildIndex
from application.use_cases.upkeep.verify_index import IndexReport, VerifyIndex
from domain.calibration import Calibration, CalibrationPoint, Evidence
from domain.decision import Outcome
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
from tests.e2e.in_process import StandIns, in_process

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


@pytest.fixture
async def core(database_url: str, tmp_path: Path) -> AsyncIterator[Core]:
    settings = Settings(data_dir=tmp_path / "data", database=DatabaseSettings(url=database_url))
    async with in_process(settings, MadeUp(MemoryFaceEmbedder()), work=False) as running:
        yield Core(running.container, running.workspace, running.backends)


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
        self, core: Core, database_url: str, tmp_path: Path
    ) -> None:
        await core.enrol(ADA)
        settings = Settings(data_dir=tmp_path / "data", database=DatabaseSettings(url=database_url))
        other = MadeUp(MemoryFaceEmbedder(model="other@1"))
        async with in_process(settings, other, work=False) as running:
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
            assert [key async for key in core.backends.blobs.keys("")] == []

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
    async def test_a_merge_of_a_merge_is_undone_step_by_step(self, core: Core) -> None:
        ada, ben, eve = [(await core.enrol(picture)).person for picture in (ADA, BEN, EVE)]
        await core.do(MergePeople, source=ben.id, target=ada.id)
        with pytest.raises(PersonMerged):
            await core.do(MergePeople, source=ben.id, target=eve.id)
        await core.do(UnmergePeople, source=ben.id, target=ada.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[ada.id], [ben.id], [eve.id]]
        assert (await core.do(GetPerson, person=ben.id)).merged_into is None

    async def test_faces_of_three_people_follow_two_merges(self, core: Core) -> None:
        ada, ben, eve = [(await core.enrol(picture)).person for picture in (ADA, BEN, EVE)]
        await core.do(MergePeople, source=ben.id, target=ada.id)
        await core.do(MergePeople, source=ada.id, target=eve.id)
        assert [await core.found(picture) for picture in (ADA, BEN, EVE)] == [[eve.id]] * 3
        await core.do(DeletePerson, person=eve.id)
        assert await core.references() == []
        assert [key async for key in core.backends.blobs.keys("")] == []
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
        assert await core.found(pictures[0]) == []
        assert await core.do(RebuildIndex) == 20
        assert [await core.found(picture) for picture in pictures] == before
        assert (await core.agreement()).agrees
