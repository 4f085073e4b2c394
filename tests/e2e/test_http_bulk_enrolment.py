import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dishka import Scope

from adapters.face_embedder.memory import MemoryFaceEmbedder
from application.use_cases.jobs.change_job import ChangeJob
from application.use_cases.jobs.handlers import ReportProgress
from application.use_cases.jobs.sweep_jobs import SweepJobs
from application.use_cases.references.enrol_bulk import EnrolBulk
from domain.job import Job, JobId, JobWork
from entrypoints.settings import DatabaseSettings, JobQueueSettings, Settings
from tests.e2e.in_process import InProcess, in_process
from tests.e2e.wire import encoded, is_problem
from tests.e2e.with_jobs import WithJobs
from tests.job_handler import Handler

BATCH = "/galleries/default/references/batch"
ASYNC = {"Prefer": "respond-async"}
ADA, BEN, EVE = (MemoryFaceEmbedder.picture(name) for name in ("ada", "ben", "eve"))
NOBODY = MemoryFaceEmbedder.group([])


@pytest.fixture
async def gate() -> Handler:
    """Stands before the real handler: its `release` lets that begin."""
    return Handler()


@pytest.fixture
async def service(database_url: str, tmp_path: Path, gate: Handler) -> AsyncIterator[InProcess]:
    settings = Settings(
        data_dir=tmp_path / "data",
        database=DatabaseSettings(url=database_url),
        job_queue=JobQueueSettings(upkeep_seconds=1),
    )

    async def behind_the_gate(job: Job, progress: ReportProgress) -> Mapping[str, object]:
        gate.begun.set()
        gate.seen.append(job)
        await gate.release.wait()
        return await (await running.container.get(EnrolBulk))(job, progress)

    async with in_process(settings, WithJobs({JobWork.BULK_ENROLMENT: Handler(behind_the_gate)})) as running:
        yield running


def items(*people: tuple[str, bytes]) -> dict[str, Any]:
    return {"items": [{"external_id": name, "image": encoded(picture)} for name, picture in people]}


async def send(service: InProcess, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await service.client.post(BATCH, json=body, headers={**ASYNC, **headers})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    return job


async def ended(service: InProcess, job: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            shown: dict[str, Any] = (await service.client.get(f"/jobs/{job['id']}")).json()
            if shown["finished_at"] is not None:
                return shown
            await asyncio.sleep(0.02)


async def cleared(service: InProcess) -> None:
    """Wait until nothing of any job lies in the blob store."""
    async with asyncio.timeout(30):
        while [key async for key in service.backends.blobs.keys("jobs/")]:  # noqa: ASYNC110 - a store has no event
            await asyncio.sleep(0.05)


async def enrolled(service: InProcess) -> list[str]:
    listed = (await service.client.get("/galleries/default/people")).json()["items"]
    references = (await service.client.get("/galleries/default/references")).json()["items"]
    by_id = {person["id"]: person["external_id"] for person in listed}
    assert set(by_id) == {reference["person_id"] for reference in references}
    return sorted(by_id[reference["person_id"]] for reference in references)


async def test_everybody_is_enrolled_or_has_a_problem_and_the_images_go(service: InProcess, gate: Handler) -> None:
    gate.release.set()
    job = await send(service, items(("ada", ADA), ("nobody", NOBODY), ("ben", BEN)))
    assert (job["status"], job["kind"], job["progress"]["total"]) == ("queued", "bulk_enrolment", 3)
    over = await ended(service, job)
    assert (over["status"], over["progress"]["done"]) == ("succeeded", 3)
    first, second, third = over["result"]["items"]
    assert [one["index"] for one in (first, second, third)] == [0, 1, 2]
    assert [len(one["accepted"]) for one in (first, third)] == [1, 1]
    assert second["problem"]["code"] == "face_not_found"
    assert await enrolled(service) == ["ada", "ben"]
    await cleared(service)


async def test_what_waits_is_sealed_and_what_the_job_shows_names_nobody(service: InProcess, gate: Handler) -> None:
    job = await send(service, items(("ada", ADA)))
    await gate.begun.wait()
    (key,) = [key async for key in service.backends.blobs.keys("jobs/")]
    sealed = await service.backends.blobs.get(key)
    assert sealed is not None
    assert ADA not in sealed
    assert b"ada" not in sealed
    gate.release.set()
    await ended(service, job)
    assert '"ada"' not in (await service.client.get(f"/jobs/{job['id']}")).text


async def test_a_job_that_is_cancelled_before_it_begins_enrols_nobody_and_its_images_go(
    service: InProcess, gate: Handler
) -> None:
    job = await send(service, items(("ada", ADA)))
    await gate.begun.wait()
    await service.client.post(f"/jobs/{job['id']}/cancel")
    # The worker is gone, and its lease has run out.
    async with service.container(scope=Scope.REQUEST) as unit:
        change = await unit.get(ChangeJob)
        await change(
            workspace=service.workspace,
            job=JobId(gate.seen[0].id),
            by=lambda held: held.given_back(held.run, held.created_at),
        )
    assert (await ended(service, job))["status"] == "cancelled"
    await cleared(service)
    gate.release.set()
    assert await enrolled(service) == []


class Interrupted(ReportProgress):
    """Writes down what came of the first so many people; then the process is killed, before or after it could."""

    def __init__(self, after: int, *, written: bool) -> None:
        self.result: Mapping[str, object] | None = None
        self._after = after
        self._written = written

    async def __call__(
        self, done: int, total: int | None = None, stage: str = "", *, result: Mapping[str, object] | None = None
    ) -> None:
        assert (total, stage) == (3, "enrolling")
        if result is not None and (done < self._after or self._written):
            self.result = {"items": [*result["items"]]}  # type: ignore[misc]  # a list, as JSON
        if done == self._after:
            raise KilledError


class KilledError(Exception):
    """Nothing after this is done."""


@pytest.mark.parametrize("written", [True, False])
async def test_a_run_that_goes_on_enrols_nobody_twice(service: InProcess, gate: Handler, *, written: bool) -> None:
    handler = await service.container.get(EnrolBulk)
    job = await send(service, items(("ada", ADA), ("ben", BEN), ("eve", EVE)))
    await gate.begun.wait()
    killed = Interrupted(2, written=written)
    with pytest.raises(KilledError):
        await handler(gate.seen[0], killed)
    assert await enrolled(service) == ["ada", "ben"]
    assert killed.result is not None
    resumed = await handler(replace(gate.seen[0], result=killed.result), Interrupted(4, written=True))
    assert [one["index"] for one in resumed["items"] if one["accepted"]] == [0, 1, 2]  # type: ignore[attr-defined]  # JSON
    assert await enrolled(service) == ["ada", "ben", "eve"]
    await service.client.post(f"/jobs/{job['id']}/cancel")


@pytest.mark.parametrize("how", ["delete", "erase"])
@pytest.mark.parametrize("written", [True, False])
async def test_somebody_deleted_in_between_is_not_brought_back(
    service: InProcess, gate: Handler, *, written: bool, how: str
) -> None:
    handler = await service.container.get(EnrolBulk)
    job = await send(service, items(("ada", ADA), ("ben", BEN), ("eve", EVE)))
    await gate.begun.wait()
    killed = Interrupted(2, written=written)
    with pytest.raises(KilledError):
        await handler(gate.seen[0], killed)
    (ben,) = (await service.client.get("/galleries/default/people", params={"external_id": "ben"})).json()["items"]
    path = f"/galleries/default/people/{ben['id']}"
    gone = await (service.client.delete(path) if how == "delete" else service.client.post(f"{path}/erase"))
    assert gone.is_success
    await handler(replace(gate.seen[0], result=killed.result), Interrupted(4, written=True))
    assert await enrolled(service) == ["ada", "eve"]
    await service.client.post(f"/jobs/{job['id']}/cancel")


@pytest.mark.parametrize("again", [True, False])
async def test_somebody_erased_after_the_job_was_started_is_not_enrolled_by_it(
    service: InProcess, gate: Handler, *, again: bool
) -> None:
    first = await service.client.post(BATCH, json=items(("ada", ADA), ("ben", BEN)))
    ada, ben = (one["enrolled"]["person"]["id"] for one in first.json()["items"])
    job = await send(service, items(("ada", ADA), ("ben", BEN), ("eve", EVE)))
    await gate.begun.wait()
    erased = await service.client.post(f"/galleries/default/people/{ada}/erase")
    assert erased.json()["still_being_removed"]["jobs"] == 1
    if again:
        # By a call that came after the erasure: the photograph from before it is still not wanted.
        await service.client.post(BATCH, json=items(("ada", ADA)))
    gate.release.set()
    first_one, second, third = (await ended(service, job))["result"]["items"]
    assert first_one["problem"]["code"] == "person_not_found"
    assert "erased" in first_one["problem"]["detail"]
    assert second["person_id"] == ben
    assert len(third["accepted"]) == 1
    assert await enrolled(service) == [*["ada"] * again, "ben", "ben", "eve"]
    # A job that is started afterwards was asked for by somebody who knew.
    after = await ended(service, await send(service, items(("ada", ADA))))
    assert len(after["result"]["items"][0]["accepted"]) == 1


async def test_a_name_that_was_erased_in_one_gallery_is_somebody_else_s_in_another(
    service: InProcess, gate: Handler
) -> None:
    await service.client.post("/galleries", json={"name": "door"})
    first = await service.client.post("/galleries/door/references/batch", json=items(("ada", ADA)))
    ada = first.json()["items"][0]["enrolled"]["person"]["id"]
    job = await send(service, items(("ada", ADA)))
    await gate.begun.wait()
    assert (await service.client.post(f"/galleries/door/people/{ada}/erase")).is_success
    gate.release.set()
    assert len((await ended(service, job))["result"]["items"][0]["accepted"]) == 1


async def test_the_images_of_an_item_go_when_it_is_done_and_not_with_its_job(service: InProcess, gate: Handler) -> None:
    handler = await service.container.get(EnrolBulk)
    job = await send(service, items(("ada", ADA), ("nobody", NOBODY), ("ben", BEN)))
    await gate.begun.wait()
    killed = Interrupted(3, written=False)
    with pytest.raises(KilledError):
        await handler(gate.seen[0], killed)
    # What came of the third one was not written down: a run that goes on asks for its file again.
    left = [key async for key in service.backends.blobs.keys(f"jobs/{service.workspace}/{job['id']}/")]
    assert [key.rpartition("/")[2] for key in left] == ["2"]
    await handler(replace(gate.seen[0], result=killed.result), Interrupted(4, written=True))
    assert [key async for key in service.backends.blobs.keys("jobs/")] == []
    assert await enrolled(service) == ["ada", "ben"]
    gate.release.set()
    await service.client.post(f"/jobs/{job['id']}/cancel")


async def test_a_call_with_the_same_key_is_one_job(service: InProcess, gate: Handler) -> None:
    gate.release.set()
    body = items(("ada", ADA))
    jobs = [await send(service, body, **{"Idempotency-Key": "once"}) for _ in range(3)]
    assert len({job["id"] for job in jobs}) == 1
    await ended(service, jobs[0])
    answer = await service.client.post(BATCH, json=items(("ben", BEN)), headers={**ASYNC, "Idempotency-Key": "once"})
    is_problem(answer, 409, "idempotency_key_reused")
    assert await enrolled(service) == ["ada"]


async def test_a_blob_store_that_is_down_leaves_nobody_to_be_enrolled(service: InProcess, gate: Handler) -> None:
    gate.release.set()
    service.backends.blobs.puts_left = 1
    answer = await service.client.post(BATCH, json=items(("ada", ADA), ("ben", BEN)), headers=ASYNC)
    is_problem(answer, 503, "dependency_unavailable")
    service.backends.blobs.puts_left = None
    (job,) = (await service.client.get("/jobs")).json()["items"]
    assert job["status"] == "cancelled"
    await cleared(service)
    assert gate.seen == []


@pytest.mark.parametrize("left", [None, 1])
async def test_a_job_that_is_cancelled_while_its_images_arrive_leaves_none_of_them(
    service: InProcess, gate: Handler, left: int | None
) -> None:
    blobs = service.backends.blobs

    async def cancelled_and_swept() -> None:
        blobs.after_put, blobs.puts_left = None, left
        (job,) = (await service.client.get("/jobs")).json()["items"]
        assert (await service.client.post(f"/jobs/{job['id']}/cancel")).json()["status"] == "cancelled"
        async with service.container(scope=Scope.REQUEST) as unit:
            await (await unit.get(SweepJobs))()

    gate.release.set()
    blobs.after_put = cancelled_and_swept
    answer = await service.client.post(BATCH, json=items(("ada", ADA), ("ben", BEN), ("eve", EVE)), headers=ASYNC)
    blobs.puts_left = None
    assert answer.status_code == (202 if left is None else 503)
    (job,) = (await service.client.get("/jobs")).json()["items"]
    assert job["status"] == "cancelled"
    await cleared(service)
    assert gate.seen == []


@pytest.mark.parametrize(
    ("body", "code"), [({"items": []}, "invalid_value"), (items(*[("a", b"x")] * 101), "too_many_items")]
)
async def test_a_batch_of_a_wrong_size_is_refused_at_once(service: InProcess, body: dict[str, Any], code: str) -> None:
    is_problem(await service.client.post(BATCH, json=body, headers=ASYNC), 422, code)
    assert (await service.client.get("/jobs")).json()["items"] == []


async def test_a_gallery_that_is_not_there_is_not_found_at_once(service: InProcess) -> None:
    answer = await service.client.post("/galleries/none/references/batch", json=items(("ada", ADA)), headers=ASYNC)
    is_problem(answer, 404, "gallery_not_found")


async def test_without_the_preference_it_is_answered_as_before(service: InProcess) -> None:
    answer = await service.client.post(BATCH, json=items(("ada", ADA), ("nobody", NOBODY)))
    assert answer.status_code == 200
    assert [sorted(one) for one in answer.json()["items"]] == [["enrolled", "index"], ["index", "problem"]]
