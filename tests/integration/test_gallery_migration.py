"""A gallery moves to another model while it is in use: two models, a real database, indexes in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from dishka import Scope, provide
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence import schema
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import engine
from adapters.persistence.schema import OpenSealing, Sealing
from application.ports.calibrations import Calibrations
from application.ports.face_embedder import FaceEmbedder
from application.ports.index_states import IndexName
from domain.calibration import Calibration
from domain.embedding import EmbeddingSpace
from domain.face import Analysis, Box, Embed
from entrypoints.settings import Settings
from entrypoints.wiring.faces import NextFaceEmbedder
from entrypoints.wiring.indexes import Indexes
from entrypoints.wiring.keys import sealing_at
from tests.e2e.in_process import InProcess, StandIns, StoppableVectorIndex, in_process, settings_for
from tests.e2e.wire import encoded, is_problem
from tests.integration.test_use_cases import CURVE

PATIENCE = 60.0
picture = MemoryFaceEmbedder.picture


class WatchedEmbedder(FaceEmbedder):
    """The memory embedder of another model, which can be blind to some pictures, and be held up."""

    def __init__(self, *, model: str, dimension: int) -> None:
        self._embedder: Final = MemoryFaceEmbedder(model=model, dimension=dimension)
        self.unseen: set[bytes] = set()
        """Pictures in which it finds nobody."""
        self.elsewhere: set[bytes] = set()
        """Pictures in which it finds somebody, but not where the face is."""
        self.beside: set[bytes] = set()
        """Pictures in which it finds a larger face beside the one that was enrolled."""
        self.instead: dict[bytes, bytes] = {}
        """What it sees in a picture in place of what is there."""
        self.looked_at = 0
        self.before: Callable[[bytes], Awaitable[None]] | None = None
        """What happens elsewhere before a picture is looked at."""

    @property
    def space(self) -> EmbeddingSpace:
        return self._embedder.space

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        self.looked_at += 1
        if self.before is not None:
            await self.before(image)
        seen = await self._embedder.analyse(self.instead.get(image, image), embed=embed)
        if image in self.unseen:
            return replace(seen, faces=())
        if image in self.elsewhere:
            far = Box(0.0, 0.0, 20.0, 20.0)
            return replace(seen, faces=tuple(replace(face, box=far) for face in seen.faces))
        if image in self.beside:
            group = await self._embedder.analyse(MemoryFaceEmbedder.group(["stranger", "ada"]), embed=embed)
            stranger, ada = group.faces
            return replace(group, faces=(replace(stranger, box=ada.box), replace(ada, box=stranger.box)))
        return seen

    async def close(self) -> None:
        await self._embedder.close()


class OneCurve(Calibrations):
    """The same curve for every space."""

    def of(self, space: EmbeddingSpace) -> Calibration:  # noqa: ARG002 - the port's
        return CURVE

    def keep(self, calibration: Calibration, *, space: EmbeddingSpace) -> str:
        raise NotImplementedError

    def written(self, calibration: Calibration, *, space: EmbeddingSpace) -> str:
        raise NotImplementedError


class TwoModels(StandIns):
    """Memory backends, with a second model and its index."""

    def __init__(self, *, second: bool = True) -> None:
        super().__init__(WatchedEmbedder(model="old@1", dimension=128))
        self.new: Final = WatchedEmbedder(model="new@1", dimension=96)
        self.new_index: Final = StoppableVectorIndex(self.new.space)
        self.second: Final = second

    @property
    def old_model(self) -> WatchedEmbedder:
        assert isinstance(self.embedder, WatchedEmbedder)
        return self.embedder

    def with_the_new_one_alone(self) -> "TheNewOneAlone":
        """Return the same stores, with the second model in place of the first."""
        return TheNewOneAlone(self)

    @provide(override=True)
    def its_next_embedder(self) -> NextFaceEmbedder:
        return self.new if self.second else None

    @provide(override=True)
    def its_indexes(self) -> Indexes:
        name = IndexName("pgvector")
        return Indexes({self.embedder.space.id: {name: self.index}, self.new.space.id: {name: self.new_index}})

    @provide(override=True)
    def its_calibrations(self) -> Calibrations:
        return OneCurve()

    @provide(override=True)
    def its_calibration(self) -> Calibration:
        return CURVE


class TheNewOneAlone(StandIns):
    """The stores of another service, and its second model."""

    def __init__(self, both: TwoModels) -> None:
        super().__init__(both.new, both.blobs)
        self._both: Final = both

    @property
    def new_index(self) -> StoppableVectorIndex:
        return self._both.new_index

    @provide(override=True)
    def its_indexes(self) -> Indexes:
        return Indexes({self.embedder.space.id: {IndexName("pgvector"): self._both.new_index}})

    @provide(override=True)
    def its_calibration(self) -> Calibration:
        return CURVE


@dataclass(frozen=True, slots=True)
class Service:
    """The running service, as its clients and its operator see it."""

    running: InProcess
    backends: Any

    @property
    def client(self) -> httpx.AsyncClient:
        return self.running.client

    @property
    def old(self) -> str:
        return str(self.backends.embedder.space.id)

    @property
    def new(self) -> str:
        return str(self.backends.new.space.id)

    async def enrol(self, *pictures: bytes, person: str, gallery: str = "default") -> dict[str, Any]:
        body = {"external_id": person, "images": [encoded(one) for one in pictures]}
        answer = await self.client.post(f"/galleries/{gallery}/references", json=body)
        assert answer.status_code == 201, answer.text
        enrolled: dict[str, Any] = answer.json()
        return enrolled

    async def found(self, image: bytes) -> list[str]:
        answer = await self.client.post("/search", json={"image": encoded(image)})
        assert answer.status_code == 200, answer.text
        return [one["person"]["external_id"] for one in answer.json()["faces"][0]["matches"]]

    async def verified(self, image: bytes, person: str) -> str:
        answer = await self.client.post("/verify", json={"image": encoded(image), "external_id": person})
        assert answer.status_code == 200, answer.text
        outcome: str = answer.json()["decision"]["outcome"]
        return outcome

    async def delete(self, person_id: str) -> None:
        assert (await self.client.delete(f"/galleries/default/people/{person_id}")).status_code == 204

    async def space(self) -> str:
        return str((await self.client.get("/galleries/default")).json()["space"])

    async def migrate(self, **body: Any) -> dict[str, Any]:  # noqa: ANN401 - a body's fields
        return await self.ended(await self.client.post("/galleries/default/migrate", json=body))

    async def finish(self) -> dict[str, Any]:
        await self.execute("UPDATE gallery_moves SET switched_at = switched_at - interval '1 hour'")
        return await self.ended(await self.client.delete("/galleries/default/migration"))

    async def ended(self, asked: httpx.Response) -> dict[str, Any]:
        assert asked.status_code == 202, asked.text
        job: dict[str, Any] = {}

        async def has_ended() -> bool:
            job.update((await self.client.get(f"/jobs/{asked.json()['id']}")).json())
            return job["status"] in {"succeeded", "failed", "cancelled"}

        await comes_true(has_ended)
        return job

    async def migration(self) -> dict[str, Any]:
        shown: dict[str, Any] = (await self.client.get("/galleries/default/migration")).json()
        return shown

    async def left_behind(self) -> dict[str, str]:
        listed = (await self.client.get("/galleries/default/migration/left-behind")).json()
        return {one["person"]["external_id"]: one["code"] for one in listed["items"]}

    async def indexed(self) -> tuple[set[str], set[str]]:
        """The references in the old and in the new index."""
        gallery = (await self.client.get("/galleries/default")).json()["id"]
        old, new = [
            {str(entry.reference) async for entry in index.entries(gallery_id(gallery))}
            for index in (self.backends.index, self.backends.new_index)
        ]
        return old, new

    async def nothing_is_left_of_anybody(self) -> bool:
        kept = await self.execute(
            "SELECT (SELECT count(*) FROM spare_templates) + (SELECT count(*) FROM reconciliations)"
        )
        images = [key async for key in self.backends.blobs.keys("")]
        return (kept[0][0], images, await self.indexed()) == (0, [], (set(), set()))

    async def references(self) -> dict[str, bool]:
        """All of them, and whether they are said to be searchable."""
        listed = (await self.client.get("/galleries/default/references?limit=100")).json()
        return {one["id"]: one["searchable"] for one in listed["items"]}

    async def execute(self, statement: str) -> Any:  # noqa: ANN401 - whatever the statement gives
        async with self.running.container(scope=Scope.REQUEST) as unit:
            connection = await unit.get(SqlConnection)
            done = await connection.execute(text(statement))
            rows = done.all() if done.returns_rows else []
            await connection.commit()
            return rows


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return settings_for(database_url, tmp_path, tmp_path / "models")


@asynccontextmanager
async def serving(settings: Settings, backends: StandIns) -> AsyncIterator[Service]:
    async with in_process(settings, backends) as running:
        yield Service(running, backends)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with serving(settings, TwoModels()) as opened:
        yield opened


async def comes_true(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await true():  # noqa: ASYNC110 - what is waited for happens in the service
            await asyncio.sleep(0.02)


def gallery_id(name: str) -> Any:  # noqa: ANN401 - a NewType
    return UUID(name)


class Gate:
    """Holds up whoever looks at one picture, until it is opened."""

    def __init__(self, image: bytes) -> None:
        self._image: Final = image
        self.reached: Final = asyncio.Event()
        self.open: Final = asyncio.Event()

    async def __call__(self, image: bytes) -> None:
        if image == self._image:
            self.reached.set()
            await self.open.wait()


class TestMoving:
    async def test_a_gallery_moves_and_finds_the_same_people(self, service: Service) -> None:
        for name in ("ada", "ben"):
            await service.enrol(picture(name), picture(name, variation=0.2), person=name)
        prepared = await service.migrate(to="new")
        assert (prepared["status"], prepared["result"]["switched"]) == ("succeeded", False)
        assert await service.space() == service.old
        assert (await service.migration())["phase"] == "prepared"
        switched = await service.migrate(switch=True)
        assert (switched["status"], switched["result"]["switched"]) == ("succeeded", True)
        assert await service.space() == service.new
        assert (await service.migration())["phase"] == "switched"
        for name in ("ada", "ben"):
            assert await service.found(picture(name, variation=0.3)) == [name]
            assert await service.verified(picture(name, variation=0.3), name) == "match"
        assert await service.found(picture("eve")) == []
        assert all((await service.references()).values())
        assert service.backends.new.looked_at == 4 + 5

    async def test_an_empty_gallery_moves(self, service: Service) -> None:
        assert (await service.migrate(switch=True))["result"]["switched"]
        await service.enrol(picture("ada"), person="ada")
        assert await service.found(picture("ada")) == ["ada"]
        assert (await service.indexed())[0] == set()

    async def test_nobody_notices(self, service: Service) -> None:
        """Searches, verifications, enrolments and deletions all the while: there, back, and settled."""
        crowd = Crowd(service)
        async with crowd.busy():
            assert (await service.migrate())["status"] == "succeeded"
            for target in ("new", "old"):
                await crowd.goes_on()
                moved = await service.migrate(to=target, switch=True)
                assert (moved["status"], moved["attempts"]) == ("succeeded", 1), moved
                assert await service.space() == getattr(service, target)
            await crowd.goes_on()
            assert (await service.finish())["status"] == "succeeded"
            await crowd.goes_on()
        await comes_true(lambda: service_is_quiet(service))
        old, new = await service.indexed()
        assert (old, new) == (set(await service.references()), set())
        assert (await service.migration())["code"] == "migration_not_found"

    async def test_the_face_that_was_enrolled_follows_and_no_other(self, service: Service) -> None:
        service.backends.new.beside.add(picture("ada"))
        await service.enrol(picture("ada"), person="ada")
        assert (await service.migrate(switch=True))["status"] == "succeeded"
        assert await service.verified(picture("ada", variation=0.1), "ada") == "match"
        assert await service.verified(picture("stranger"), "ada") == "no_match"

    async def test_the_report_counts_what_both_models_decide(self, service: Service) -> None:
        for name in ("ada", "ben", "eve"):
            await service.enrol(picture(name), picture(name, variation=0.2), person=name)
        await service.enrol(picture("alone"), person="alone")
        # The new model takes the shot for somebody else.
        other = picture("ben", variation=9.0)
        service.backends.new.instead[picture("ben", variation=0.2)] = other
        report = (await service.migrate())["result"]["agreement"]
        assert report["probes"] == 7
        assert report["search"] == {"compared": 7, "same": 5, "right_before": 7, "right_after": 5}
        assert report["genuine"] == {"compared": 6, "same": 4, "right_before": 6, "right_after": 4}
        assert report["impostor"] == {"compared": 7, "same": 7, "right_before": 7, "right_after": 7}
        assert {one["question"] for one in report["different"]} == {"search", "genuine"}
        first = next(one for one in report["different"] if one["question"] == "genuine")
        assert (first["before"]["outcome"], first["after"]["outcome"]) == ("match", "no_match")
        assert (await service.migration())["report"] == report
        shown = (await service.client.get("/galleries/default/people?limit=100")).json()["items"]
        (ben,) = [one["id"] for one in shown if one["external_id"] == "ben"]
        assert ben in json.dumps(report)
        assert (await service.client.post(f"/galleries/default/people/{ben}/erase")).is_success
        left = await service.migration()
        assert ben not in json.dumps(left)
        assert left["report"] == {**report, "different": left["report"]["different"]}


class TestLeftBehind:
    async def test_those_who_cannot_follow_hold_up_the_switch_and_are_named(self, service: Service) -> None:
        ben, eve = picture("ben"), picture("eve")
        service.backends.new.unseen.add(ben)
        service.backends.new.elsewhere.add(eve)
        for name in ("ada", "ben", "eve"):
            await service.enrol(picture(name), person=name)
        await service.client.patch("/galleries/default", json={"policy": {"keep_images": False}})
        await service.enrol(picture("dan"), person="dan")
        refused = await service.migrate(switch=True)
        assert (refused["status"], refused["errors"][-1]["code"]) == ("failed", "references_left_behind")
        assert await service.space() == service.old
        why = {"ben": "face_not_found", "eve": "face_not_found", "dan": "image_not_kept"}
        assert await service.left_behind() == why
        state = await service.migration()
        assert state["left_behind"] == {"face_not_found": 2, "image_not_kept": 1}
        assert (state["references"], state["followed"], state["lagging"]) == (4, 1, 0)

        assert (await service.migrate(switch=True, leave_behind=True))["result"]["switched"]
        assert await service.found(picture("ada")) == ["ada"]

        async def counts_who_can_be_found() -> bool:
            searched = await service.client.post("/search", json={"image": encoded(picture("ada"))})
            return bool(searched.json()["references"] == 1)

        await comes_true(counts_who_can_be_found)
        for name in why:
            assert await service.found(picture(name, variation=0.1)) == []
            asked = {"image": encoded(picture(name, variation=0.1)), "external_id": name}
            answer = await service.client.post("/verify", json=asked)
            is_problem(answer, 404, "reference_not_found")
        assert sorted((await service.references()).values()) == [False, False, False, True]

        assert (await service.migrate(to="old", switch=True))["result"]["switched"]
        for name in ("ada", *why):
            assert await service.found(picture(name)) == [name]
        assert all((await service.references()).values())

    async def test_those_left_behind_are_kept_and_listed_when_the_gallery_has_settled(self, service: Service) -> None:
        service.backends.new.unseen.add(picture("ben"))
        made = {name: await service.enrol(picture(name), person=name) for name in ("ada", "ben")}
        await service.migrate(switch=True, leave_behind=True)
        await service.finish()
        assert await service.left_behind() == {"ben": "face_not_found"}
        ada, ben = (made[name]["accepted"][0]["id"] for name in ("ada", "ben"))
        assert await service.references() == {ada: True, ben: False}
        assert await service.indexed() == (set(), {ada})
        image = await service.client.get(f"/galleries/default/references/{ben}/image")
        assert image.content == picture("ben")
        for one in made.values():
            await service.delete(one["person"]["id"])
        await comes_true(service.nothing_is_left_of_anybody)

    async def test_they_are_tried_again_when_that_is_asked_for(self, service: Service) -> None:
        service.backends.new.unseen.add(picture("ada"))
        await service.enrol(picture("ada"), person="ada")
        assert (await service.migrate())["result"]["left_behind"] == {"face_not_found": 1}
        service.backends.new.unseen.clear()
        assert (await service.migrate(switch=True))["result"]["switched"]
        assert await service.left_behind() == {}
        assert await service.found(picture("ada")) == ["ada"]


class TestWhatHappensMeanwhile:
    async def test_an_enrolment_that_comes_late_begins_again_in_the_new_space(self, service: Service) -> None:
        late = service.backends.old_model.before = Gate(picture("late"))
        enrolling = asyncio.create_task(service.enrol(picture("late"), person="late"))
        await late.reached.wait()
        assert (await service.migrate(switch=True))["result"]["switched"]
        late.open.set()
        assert (await enrolling)["accepted"][0]["searchable"]
        assert await service.found(picture("late")) == ["late"]
        assert len(await service.references()) == 1
        old, new = await service.indexed()
        assert (len(old), len(new)) == (0, 1)

    async def test_a_question_ends_in_the_space_that_it_began_in(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        await service.enrol(picture("ben"), person="ben")
        probe = picture("ada", variation=0.1)
        asked = service.backends.old_model.before = Gate(probe)
        searching = asyncio.create_task(service.client.post("/search", json={"image": encoded(probe)}))
        verifying = asyncio.create_task(
            service.client.post("/verify", json={"image": encoded(probe), "external_id": "ada"})
        )
        await asked.reached.wait()
        assert (await service.migrate(switch=True))["result"]["switched"]
        asked.open.set()
        searched, verified = (await searching).json(), (await verifying).json()
        assert [one["person"]["external_id"] for one in searched["faces"][0]["matches"]] == ["ada"]
        assert (verified["verified"], verified["model"], searched["model"]) == (True, "old@1", "old@1")

    @pytest.mark.parametrize("when", ["followed", "switched", "taken back"])
    async def test_who_is_deleted_leaves_nothing_behind_in_either_space(self, service: Service, when: str) -> None:
        ada = await service.enrol(picture("ada"), picture("ada", variation=0.2), person="ada")
        await service.migrate(switch=when != "followed")
        if when == "taken back":
            await service.migrate(to="old", switch=True)
        await service.delete(ada["person"]["id"])
        assert await service.found(picture("ada")) == []
        await comes_true(service.nothing_is_left_of_anybody)

    async def test_who_is_deleted_while_they_are_looked_at_does_not_follow(self, service: Service) -> None:
        ada = await service.enrol(picture("ada"), person="ada")
        looked = service.backends.new.before = Gate(picture("ada"))
        moving = asyncio.create_task(service.migrate(switch=True))
        await looked.reached.wait()
        await service.delete(ada["person"]["id"])
        looked.open.set()
        assert (await moving)["result"]["references"] == 0
        await comes_true(service.nothing_is_left_of_anybody)

    async def test_who_is_merged_on_the_way_is_found_as_who_they_are_now(self, service: Service) -> None:
        ada, ben = [await service.enrol(picture(name), person=name) for name in ("ada", "ben")]
        await service.migrate()
        into = f"/galleries/default/people/{ada['person']['id']}"
        merged = {"person_id": ben["person"]["id"]}
        assert (await service.client.post(f"{into}/merge", json=merged)).status_code == 200
        await service.migrate(switch=True)
        assert await service.found(picture("ben")) == ["ada"]
        assert (await service.client.post(f"{into}/unmerge", json=merged)).status_code == 200
        assert await service.found(picture("ben")) == ["ben"]
        await service.migrate(to="old", switch=True)
        assert (await service.found(picture("ada")), await service.found(picture("ben"))) == (["ada"], ["ben"])

    async def test_an_index_that_lost_everything_is_filled_before_it_answers(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        await service.migrate()
        gallery = gallery_id((await service.client.get("/galleries/default")).json()["id"])
        await service.backends.new_index.clear(gallery)
        await service.migrate(switch=True)
        assert await service.found(picture("ada")) == ["ada"]

    async def test_a_gallery_does_not_change_over_to_an_index_that_is_down(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        service.backends.new_index.down = True
        asked = await service.client.post("/galleries/default/migrate", json={"switch": True})

        async def failed_once() -> bool:
            return bool((await service.client.get(f"/jobs/{asked.json()['id']}")).json()["errors"])

        await comes_true(failed_once)
        assert await service.space() == service.old
        assert await service.found(picture("ada")) == ["ada"]
        service.backends.new_index.down = False
        await service.execute("UPDATE jobs SET due_at = now()")
        assert (await service.ended(asked))["result"]["switched"]
        assert await service.found(picture("ada")) == ["ada"]

    async def test_a_template_that_does_not_open_holds_up_nobody(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        await service.enrol(picture("ben"), person="ben")
        await service.migrate()
        await service.execute("UPDATE spare_templates SET template = set_byte(template, 40, 0) || 'x'")
        assert (await service.migrate(switch=True))["result"]["switched"]
        assert await service.found(picture("ada")) == []
        await service.migrate(to="old", switch=True)
        assert await service.found(picture("ada")) == ["ada"]


class TestInterruptions:
    async def test_a_job_whose_process_went_is_taken_up_where_it_was(self, settings: Settings) -> None:
        backends = TwoModels()
        names = [f"p{number:02}" for number in range(40)]
        async with serving(settings, backends) as service:
            for name in names:
                await service.enrol(picture(name), person=name)
            held = backends.new.before = Gate(picture("p30"))
            asked = await service.client.post("/galleries/default/migrate", json={"switch": True})
            await held.reached.wait()
        backends.new.before = None
        async with serving(settings, backends) as service:
            assert (await service.ended(asked))["result"]["switched"]
            # Nothing that was committed before was done again: at most one stretch was.
            assert backends.new.looked_at <= len(names) + 16 + 2
            for name in names:
                assert await service.found(picture(name, variation=0.2)) == [name]

    async def test_a_process_that_goes_while_it_switches_leaves_the_gallery_where_it_was(
        self, settings: Settings
    ) -> None:
        backends = TwoModels()
        async with serving(settings, backends) as service:
            await service.enrol(picture("ada"), person="ada")
            await service.migrate()
            await service.enrol(picture("ben"), person="ben")
            writing = asyncio.Event()

            async def never() -> None:
                writing.set()
                await asyncio.Event().wait()

            backends.new_index.before_upsert = never
            asked = await service.client.post("/galleries/default/migrate", json={"switch": True})
            await writing.wait()
            assert await service.space() == service.old
            assert await service.found(picture("ben")) == ["ben"]
        backends.new_index.before_upsert = None
        async with serving(settings, backends) as service:
            assert (await service.ended(asked))["result"]["switched"]
            assert await service.found(picture("ben")) == ["ben"]

    async def test_a_job_that_was_cancelled_is_gone_on_with(self, service: Service) -> None:
        for number in range(20):
            await service.enrol(picture(f"p{number}"), person=f"p{number}")
        held = service.backends.new.before = Gate(picture("p3"))
        asked = await service.client.post("/galleries/default/migrate", json={})
        await held.reached.wait()
        assert (await service.migration())["phase"] == "running"
        answer = await service.client.post("/galleries/default/migrate", json={})
        is_problem(answer, 409, "migration_running")
        is_problem(await service.client.delete("/galleries/default/migration"), 409, "migration_running")
        await service.client.post(f"/jobs/{asked.json()['id']}/cancel")
        # It is heeded when progress is next written.
        held.open.set()
        ended = await service.ended(asked)
        if ended["status"] == "cancelled":
            assert (await service.migration())["phase"] == "stopped"
        assert (await service.migrate())["result"]["followed"] == 20


class TestFinishing:
    async def test_a_gallery_that_has_settled_has_one_space(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        await service.migrate(switch=True)
        await service.enrol(picture("ben"), person="ben")
        assert (await service.finish())["status"] == "succeeded"
        old, new = await service.indexed()
        assert (old, len(new)) == (set(), 2)
        spaces = await service.execute('SELECT DISTINCT space FROM "references"')
        assert [row[0] for row in spaces] == [service.new]
        assert (await service.execute("SELECT count(*) FROM spare_templates"))[0][0] == 0
        assert await service.found(picture("ada")) == ["ada"]
        is_problem(await service.client.get("/galleries/default/migration"), 404, "migration_not_found")
        # The way back is the whole way.
        seen = service.backends.old_model.looked_at
        assert (await service.migrate(to="old", switch=True))["result"]["switched"]
        assert service.backends.old_model.looked_at == seen + 2
        assert (await service.found(picture("ada")), await service.found(picture("ben"))) == (["ada"], ["ben"])

    async def test_a_migration_that_is_given_up_leaves_nothing(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        await service.migrate()
        await service.finish()
        old, new = await service.indexed()
        assert (len(old), new) == (1, set())
        assert await service.space() == service.old
        assert (await service.execute("SELECT count(*) FROM spare_templates"))[0][0] == 0
        assert await service.found(picture("ada")) == ["ada"]

    async def test_the_former_space_is_kept_for_searches_that_began_in_it(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        await service.migrate(switch=True)
        asked = await service.client.delete("/galleries/default/migration")
        assert asked.status_code == 202
        job = asked.json()
        assert (job["status"], job["due_at"] > job["created_at"]) == ("queued", True)
        assert (await service.indexed())[0] != set()

    async def test_the_new_model_can_then_be_the_only_one(self, settings: Settings) -> None:
        backends = TwoModels()
        async with serving(settings, backends) as service:
            ada = await service.enrol(picture("ada"), person="ada")
            await service.migrate(switch=True)
            await service.finish()
        async with serving(settings, backends.with_the_new_one_alone()) as service:
            assert await service.found(picture("ada")) == ["ada"]
            await service.delete(ada["person"]["id"])
            await comes_true(service.nothing_is_left_of_anybody)

    async def test_where_it_was_not_finished_who_is_deleted_is_forgotten_once_both_are_served_again(
        self, settings: Settings
    ) -> None:
        backends = TwoModels()
        async with serving(settings, backends) as service:
            ada = await service.enrol(picture("ada"), person="ada")
            await service.migrate(switch=True)
        async with serving(settings, backends.with_the_new_one_alone()) as service:
            await service.delete(ada["person"]["id"])
            assert await service.found(picture("ada")) == []
            is_problem(await service.client.delete("/galleries/default/migration"), 409, "space_not_served")
        async with serving(settings, backends) as service:
            assert len((await service.indexed())[0]) == 1
            await service.execute("UPDATE reconciliations SET due_at = now()")
            await comes_true(service.nothing_is_left_of_anybody)


def earlier(url: str, settings: Settings) -> OpenSealing:
    """Return keys as they were before there was a ring of them: a way back is left to those alone."""

    async def sealing() -> Sealing:
        return replace(await sealing_at(url, settings)(), from_master_key=True)

    return sealing


class TestAnOlderSchema:
    async def test_each_reference_keeps_the_template_of_its_gallery(
        self, settings: Settings, database_url: str
    ) -> None:
        async with serving(settings, TwoModels()) as service:
            await service.enrol(picture("ada"), person="ada")
            await service.migrate(switch=True)
            enrolled = await service.execute('SELECT r.template, s.template FROM "references" r, spare_templates s')
        await schema.downgrade(database_url, "0003", sealing=earlier(database_url, settings))
        kept = await fetched(database_url, 'SELECT template, space FROM "references"')
        assert kept == [(enrolled[0][1], service.new)]

    async def test_it_is_refused_while_references_are_left_behind(self, settings: Settings, database_url: str) -> None:
        backends = TwoModels()
        backends.new.unseen.add(picture("ada"))
        async with serving(settings, backends) as service:
            await service.enrol(picture("ada"), person="ada")
            await service.migrate(switch=True, leave_behind=True)
        with pytest.raises(DBAPIError, match="left behind"):
            await schema.downgrade(database_url, "0003", sealing=earlier(database_url, settings))
        assert await schema.current(database_url) == "0004"


async def fetched(url: str, query: str) -> list[tuple[Any, ...]]:
    pool = engine(url, connections=1, timeout=10.0, autocommit=True)
    try:
        async with pool.connect() as connection:
            return [tuple(row) for row in (await connection.execute(text(query))).all()]
    finally:
        await pool.dispose()


class TestWhatIsRefused:
    async def test_a_model_that_is_not_served(self, service: Service) -> None:
        answer = await service.client.post("/galleries/default/migrate", json={"to": "buffalo_l"})
        problem = is_problem(answer, 409, "space_not_served")
        assert "FACEPASS_NEXT_FACE_EMBEDDER__BACKEND" in problem["detail"]

    async def test_a_move_where_one_model_is_served(self, settings: Settings) -> None:
        async with serving(settings, TwoModels(second=False)) as service:
            answer = await service.client.post("/galleries/default/migrate", json={})
            is_problem(answer, 409, "space_not_served")

    async def test_the_model_that_the_gallery_is_with(self, service: Service) -> None:
        for to in ("old", "old@1", service.old):
            answer = await service.client.post("/galleries/default/migrate", json={"to": to})
            is_problem(answer, 409, "space_in_use")

    async def test_a_gallery_with_a_fixed_threshold(self, service: Service) -> None:
        await service.client.patch("/galleries/default", json={"policy": {"search_threshold": 0.6}})
        answer = await service.client.post("/galleries/default/migrate", json={"to": "new"})
        is_problem(answer, 409, "threshold_fixed")

    async def test_a_gallery_that_gets_a_fixed_threshold_on_the_way(self, service: Service) -> None:
        await service.enrol(picture("ada"), person="ada")
        held = service.backends.new.before = Gate(picture("ada"))
        asked = await service.client.post("/galleries/default/migrate", json={"switch": True})
        await held.reached.wait()
        await service.client.patch("/galleries/default", json={"policy": {"verification_threshold": 0.6}})
        held.open.set()
        assert (await service.ended(asked))["errors"][-1]["code"] == "threshold_fixed"
        assert await service.space() == service.old

    async def test_what_is_not_there(self, service: Service) -> None:
        is_problem(await service.client.get("/galleries/default/migration"), 404, "migration_not_found")
        is_problem(await service.client.delete("/galleries/default/migration"), 404, "migration_not_found")
        is_problem(await service.client.post("/galleries/none/migrate", json={}), 404, "gallery_not_found")
        answer = await service.client.post("/galleries/default/migrate", json={"too": "new"})
        is_problem(answer, 422, "invalid_value", field="too")


async def service_is_quiet(service: Service) -> bool:
    # An enrolment that its client left half way is forgotten after an hour.
    soon = "SELECT count(*) FROM reconciliations WHERE due_at < now() + interval '30 minutes'"
    return bool((await service.execute(soon))[0][0] == 0)


class Crowd:
    """Clients who do everything all the while, and know what the answers must be."""

    RESIDENTS: Final = [f"resident{number:02}" for number in range(12)]

    def __init__(self, service: Service) -> None:
        self._service: Final = service
        self._random: Final = Random(7)  # noqa: S311 - who is asked for
        self._numbers: Final = count()
        self._rounds: Final = {"find": 0, "come_and_go": 0, "strangers": 0}

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        for name in self.RESIDENTS:
            await self._service.enrol(picture(name), picture(name, variation=0.2), person=name)
        async with asyncio.TaskGroup() as group:
            working = [
                group.create_task(self._again_and_again(work))
                for work in (self.find, self.come_and_go, self.come_and_go, self.strangers)
            ]
            yield
            for task in working:
                task.cancel()

    async def goes_on(self) -> None:
        """Wait until everybody has done everything some more."""
        before = dict(self._rounds)

        async def done() -> bool:
            return all(self._rounds[name] > rounds + 2 for name, rounds in before.items())

        await comes_true(done)

    async def find(self) -> None:
        name = self._random.choice(self.RESIDENTS)
        probe = picture(name, variation=0.25, shot=next(self._numbers))
        assert await self._service.found(probe) == [name]
        assert await self._service.verified(probe, name) == "match"
        other = self._random.choice([one for one in self.RESIDENTS if one != name])
        assert await self._service.verified(probe, other) == "no_match"

    async def come_and_go(self) -> None:
        name = f"guest{next(self._numbers)}"
        made = await self._service.enrol(picture(name), person=name)
        assert made["accepted"][0]["searchable"]
        assert await self._service.found(picture(name, variation=0.2)) == [name]
        await self._service.delete(made["person"]["id"])
        assert await self._service.found(picture(name, variation=0.2)) == []

    async def strangers(self) -> None:
        assert await self._service.found(picture(f"stranger{next(self._numbers)}")) == []

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()
            self._rounds[work.__name__] += 1
