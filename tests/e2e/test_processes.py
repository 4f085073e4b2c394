import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.engine import make_url

from tests.conftest import ENVIRONMENT
from tests.e2e.installation import WORKS, Installation, Process, until
from tests.e2e.own_worker import SECRET
from tests.e2e.wire import encoded

STEPS = 4
REFERENCES = "/galleries/default/references"


@pytest.fixture(scope="module")
async def running(postgres_url: str, migrated_url: str, open_pack_dir: Path) -> AsyncIterator[Installation]:
    """Two nodes, and nobody who works."""
    template = str(make_url(migrated_url).database)
    async with Installation.running(postgres_url, template, open_pack_dir, ENVIRONMENT) as installation:
        yield installation


@pytest.fixture
async def installation(running: Installation) -> Installation:
    """Two nodes and two workers, as an operator starts them."""
    await only(running.workers, instead_of=running.own_workers)
    return running


@pytest.fixture
async def holding(running: Installation) -> Installation:
    """Two nodes, and two workers that hold their jobs where the test wants them to."""
    await only(running.own_workers, instead_of=running.workers)
    return running


async def only(wanted: list[Process], *, instead_of: list[Process]) -> None:
    await asyncio.gather(*(process.end() for process in instead_of))
    begun = [process for process in wanted if not process.running]
    for process in begun:
        process.begin()
    await asyncio.gather(*(process.says(WORKS) for process in begun))


async def enrol(client: httpx.AsyncClient, image: bytes) -> dict[str, Any]:
    answer = await client.post(REFERENCES, files={"image": image}, data={"external_id": uuid4().hex})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def finds(client: httpx.AsyncClient, image: bytes, made: dict[str, Any]) -> bool:
    answer = await client.post("/search", files={"image": image}, data={"limit": "100"})
    if answer.status_code == 503:
        return False
    assert answer.status_code == 200, answer.text
    return made["person"]["id"] in [match["person"]["id"] for match in answer.json()["faces"][0]["matches"]]


async def new_gallery(client: httpx.AsyncClient) -> str:
    name = f"g{uuid4().hex}"
    assert (await client.post("/galleries", json={"name": name})).status_code == 201
    return name


async def begin_bulk(client: httpx.AsyncClient, gallery: str, images: list[bytes]) -> str:
    """Have each image enrolled as a person by a job, and return its id."""
    answer = await client.post(
        f"/galleries/{gallery}/references/batch",
        json={"items": [{"image": encoded(image), "external_id": f"{number}"} for number, image in enumerate(images)]},
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def searchable(made: dict[str, Any]) -> bool:
    (one,) = made["accepted"]
    told: bool = one["searchable"]
    return told


async def health(client: httpx.AsyncClient) -> tuple[int, str]:
    answer = await client.get(client.base_url.join("/health/ready"))
    return answer.status_code, answer.json()["status"]


async def all_are(installation: Installation, status: str) -> bool:
    return [await health(client) for client in installation.clients] == [(200, status)] * 2


class TestNodesAndWorkers:
    async def test_what_one_node_is_told_the_other_knows_at_once(
        self, installation: Installation, astronaut: bytes, again: bytes
    ) -> None:
        one, other = installation.clients
        made = await enrol(one, astronaut)
        assert searchable(made)
        assert await finds(other, again, made)
        person = {"person_id": made["person"]["id"]}
        verified = await other.post("/verify", files={"image": again}, data=person)
        assert verified.json()["verified"] is True
        assert (await other.delete(f"{REFERENCES}/{made['accepted'][0]['id']}")).status_code == 204
        assert not await finds(one, again, made)

    async def test_a_job_that_one_node_takes_is_done_by_a_worker_and_found_at_the_other(
        self, installation: Installation, cast: list[bytes]
    ) -> None:
        one, other = installation.clients
        gallery = await new_gallery(one)
        job = await begin_bulk(one, gallery, cast)
        ended = await end_of(installation, job)
        assert (ended["status"], ended["progress"]["done"]) == ("succeeded", len(cast))
        people = [item["person_id"] for item in ended["result"]["items"]]
        for image, person in zip(cast, people, strict=True):
            answer = await other.post("/search", files={"image": image}, data={"gallery": gallery, "limit": "1"})
            (found,) = answer.json()["faces"][0]["matches"]
            assert found["person"]["id"] == person
        assert any(job in worker.said() for worker in installation.workers)
        assert not any("job_run" in node.said() for node in installation.nodes)

    async def test_workers_mend_what_a_lost_index_did_not_take_and_nodes_leave_it_to_them(
        self, installation: Installation, astronaut: bytes
    ) -> None:
        one, other = installation.clients
        async with installation.without_index():
            made = await enrol(one, astronaut)
            assert not searchable(made)
            assert not await finds(other, astronaut, made)
            await until(lambda: failed_upkeep(installation.workers))
        await until(lambda: finds(other, astronaut, made))
        assert not await failed_upkeep(installation.nodes)

    async def test_a_redis_that_forgets_everything_loses_no_work(
        self, installation: Installation, astronaut: bytes
    ) -> None:
        one, other = installation.clients
        async with installation.without_index():
            made = await enrol(one, astronaut)
            assert not searchable(made)
            installation.redis.client().flushall()
        await until(lambda: finds(other, astronaut, made))
        assert await all_are(installation, "ready")

    async def test_without_redis_nodes_serve_on_and_what_waits_is_done_once_it_is_back(
        self, installation: Installation, astronaut: bytes, again: bytes
    ) -> None:
        one, other = installation.clients
        installation.redis.kill()
        try:
            await until(lambda: all_are(installation, "degraded"))
            made = await enrol(one, astronaut)
            assert searchable(made)
            assert await finds(other, again, made)
            async with installation.without_index():
                waits = await enrol(other, again)
                assert not searchable(waits)
        finally:
            installation.redis.start()
        await until(lambda: finds(one, again, waits))
        await until(lambda: all_are(installation, "ready"))
        assert all(worker.running for worker in installation.workers)

    async def test_a_check_tells_whether_a_worker_is_alive(self, installation: Installation) -> None:
        await until(lambda: checked(installation, 0))
        ended = await asyncio.gather(*(worker.end() for worker in installation.workers))
        assert ended == [0, 0]
        await until(lambda: checked(installation, 1))


class TestJobs:
    async def test_one_whose_worker_is_killed_is_done_by_another_and_nothing_twice(self, holding: Installation) -> None:
        held = await holding.start_job(steps=STEPS, waits_in=2)
        doomed = await holder(holding, held)
        others = [await holding.start_job(steps=STEPS) for _ in range(5)]
        await until(lambda: progress_is(holding, held, {"done": 2, "total": STEPS, "stage": "waiting"}))
        await doomed.end(signal.SIGKILL)
        go_on(holding, held)
        for job in (held, *others):
            ended = await end_of(holding, job)
            assert (ended["status"], ended["result"], ended["attempts"]) == ("succeeded", {"steps": STEPS}, 1)
            assert steps_of(holding, job) == STEPS
        assert [error["code"] for error in (await shown(holding, held))["errors"]] == ["worker_lost"]

    async def test_a_bulk_enrolment_whose_workers_are_all_killed_is_finished_by_the_next_with_nobody_twice(
        self, holding: Installation, cast: list[bytes]
    ) -> None:
        client = holding.clients[0]
        gallery = await new_gallery(client)
        images = cast * 3
        job = await begin_bulk(client, gallery, images)

        async def begun() -> bool:
            return len((await client.get(f"/galleries/{gallery}/people")).json()["items"]) > 1

        await until(begun)
        await asyncio.gather(*(worker.end(signal.SIGKILL) for worker in holding.own_workers))
        assert (await shown(holding, job))["status"] == "running"
        await only(holding.own_workers, instead_of=[])
        ended = await end_of(holding, job)
        assert (ended["status"], ended["attempts"]) == ("succeeded", 1)
        enrolled = {item["person_id"] for item in ended["result"]["items"]}
        assert len(enrolled) == len(images)
        for kind in ("people", "references"):
            listed = await client.get(f"/galleries/{gallery}/{kind}", params={"limit": 100})
            assert len(listed.json()["items"]) == len(images)

    async def test_one_whose_worker_is_told_to_end_is_taken_over_at_once(self, holding: Installation) -> None:
        held = await holding.start_job(steps=STEPS, waits_in=2)
        first = await holder(holding, held)
        (second,) = [worker for worker in holding.own_workers if worker is not first]
        assert await first.end() == 0
        await until(lambda: is_held_by(holding, held, second))
        go_on(holding, held)
        ended = await end_of(holding, held)
        # Nobody waited for a lease to run out: that would be a loss.
        assert (ended["status"], ended["attempts"], ended["errors"]) == ("succeeded", 1, [])
        assert steps_of(holding, held) == STEPS

    async def test_one_that_runs_is_cancelled_through_either_node(self, holding: Installation) -> None:
        held = await holding.start_job(steps=STEPS, waits_in=1)
        await holder(holding, held)
        answer = await holding.clients[1].post(f"/jobs/{held}/cancel")
        assert (answer.status_code, answer.json()["cancel_requested"]) == (200, True)
        assert (await end_of(holding, held))["status"] == "cancelled"
        assert steps_of(holding, held) == 1

    async def test_one_that_keeps_failing_is_tried_three_times_and_kept_with_its_reasons(
        self, holding: Installation
    ) -> None:
        ended = await end_of(holding, await holding.start_job(steps=STEPS, fails_in=3))
        assert (ended["status"], ended["attempts"], ended["result"]) == ("failed", 3, None)
        assert [(error["attempt"], error["code"], error["detail"]) for error in ended["errors"]] == [
            (attempt, "internal_error", "RuntimeError") for attempt in (1, 2, 3)
        ]
        assert ended["progress"] == {"done": 3, "total": STEPS, "stage": "stepping"}
        assert SECRET not in json.dumps(ended)

    async def test_a_redis_that_dies_loses_none(self, holding: Installation) -> None:
        running = await holding.start_job(steps=STEPS, waits_in=1)
        await holder(holding, running)
        holding.redis.kill()
        try:
            waiting = [await holding.start_job(steps=STEPS) for _ in range(3)]
        finally:
            holding.redis.start()
        go_on(holding, running)
        for job in (running, *waiting):
            ended = await end_of(holding, job)
            assert (ended["status"], ended["attempts"]) == ("succeeded", 1)
            assert steps_of(holding, job) == STEPS

    async def test_one_is_watched_at_a_node_until_its_end(self, holding: Installation) -> None:
        job = await holding.start_job(steps=STEPS, waits_in=1)
        told: list[dict[str, Any]] = []
        async with holding.clients[0].stream("GET", f"/jobs/{job}/events") as events:
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: ")))
                    if told[-1]["progress"]["stage"] == "waiting":
                        go_on(holding, job)
        assert told[-1]["status"] == "succeeded"


async def checked(installation: Installation, status: int) -> bool:
    return (await installation.result("worker", "--check")).returncode == status


async def failed_upkeep(processes: list[Process]) -> bool:
    """Whether one of them has met a lost index in its upkeep."""
    return any(
        "regular_work_failed" in line and "vector_index" in line
        for process in processes
        for line in process.said().splitlines()
    )


async def shown(installation: Installation, job: str) -> dict[str, Any]:
    answer = await installation.clients[1].get(f"/jobs/{job}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def progress_is(installation: Installation, job: str, progress: dict[str, object]) -> bool:
    told = await shown(installation, job)
    return (told["status"], told["progress"]) == ("running", progress)


async def end_of(installation: Installation, job: str) -> dict[str, Any]:
    """Wait until it has ended."""

    async def ended() -> bool:
        return (await shown(installation, job))["finished_at"] is not None

    await until(ended)
    return await shown(installation, job)


async def is_held_by(installation: Installation, job: str, worker: Process) -> bool:
    return (installation.steps / job / f"waits-{worker.pid}").exists()


async def holder(installation: Installation, job: str) -> Process:
    """Wait until a worker has come to where the job waits, and return it."""

    async def held() -> bool:
        return any([await is_held_by(installation, job, worker) for worker in installation.own_workers])

    await until(held)
    (worker,) = [worker for worker in installation.own_workers if await is_held_by(installation, job, worker)]
    return worker


def go_on(installation: Installation, job: str) -> None:
    (installation.steps / job / "go").touch()


def steps_of(installation: Installation, job: str) -> int:
    return len(list((installation.steps / job).glob("done-*")))
