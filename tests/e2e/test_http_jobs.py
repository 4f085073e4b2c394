import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from dishka import Scope
from litestar import Litestar, Request

from application.ports.transaction import Transaction
from application.use_cases.jobs.handlers import JobHandler, ReportProgress
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.keys.bootstrap import Bootstrap
from domain.job import Job, JobWork
from domain.permission import Role
from domain.workspace import WorkspaceId
from entrypoints.http.respond_async import accepted, wants_job
from entrypoints.settings import DatabaseSettings, JobQueueSettings, Settings
from tests.e2e.in_process import InProcess, in_process
from tests.e2e.signed_in import caller, sign_in
from tests.e2e.wire import is_problem
from tests.e2e.with_jobs import WithJobs
from tests.job_handler import Handler

KIND = JobWork.BULK_ENROLMENT
NOBODY = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"


@asynccontextmanager
async def serving(
    database_url: str, folder: Path, handler: JobHandler, *, work: bool = True
) -> AsyncIterator[InProcess]:
    settings = Settings(
        data_dir=folder / "data",
        database=DatabaseSettings(url=database_url),
        job_queue=JobQueueSettings(upkeep_seconds=1),
    )
    async with in_process(settings, WithJobs({KIND: handler}), work=work) as running:
        yield running


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def service(database_url: str, tmp_path: Path, handler: Handler) -> AsyncIterator[InProcess]:
    async with serving(database_url, tmp_path, handler) as running:
        yield running


@pytest.fixture
async def idle(database_url: str, tmp_path: Path) -> AsyncIterator[InProcess]:
    """Nothing is done in the background."""
    async with serving(database_url, tmp_path, Handler(), work=False) as running:
        yield running


async def start(
    service: InProcess, *, kind: JobWork = KIND, workspace: WorkspaceId | None = None, hurry: bool = True
) -> Job:
    """Note a job down; without `hurry` nobody puts it on the queue."""
    async with service.container(scope=Scope.REQUEST) as unit:
        begin = await unit.get(StartJob)
        job = await begin(workspace=workspace or service.workspace, kind=kind, parameters={"n": 3}, total=2)
        await (await unit.get(Transaction)).commit()
        if hurry:
            await begin.after_commit(job)
    return job


async def ended(service: InProcess, job: Job) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            shown: dict[str, Any] = (await service.client.get(f"/jobs/{job.id}")).json()
            if shown["finished_at"] is not None:
                return shown
            await asyncio.sleep(0.02)


def events(body: str) -> list[dict[str, Any]]:
    """What a client for server-sent events hears."""
    heard = []
    for block in body.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            assert lines["event"] == "job"
            heard.append(json.loads(lines["data"]))
    return heard


class TestShown:
    async def test_a_job_is_shown_from_its_beginning_to_its_end(self, service: InProcess, handler: Handler) -> None:
        job = await start(service)
        await handler.begun.wait()
        shown = (await service.client.get(f"/jobs/{job.id}")).json()
        assert shown["id"] == str(job.id)
        assert (shown["kind"], shown["status"], shown["parameters"]) == ("bulk_enrolment", "running", {"n": 3})
        assert shown["progress"] == {"done": 0, "total": 2, "stage": ""}
        assert (shown["result"], shown["finished_at"], shown["errors"]) == (None, None, [])
        handler.release.set()
        over = await ended(service, job)
        assert (over["status"], over["result"], over["attempts"]) == ("succeeded", {"seen": 1}, 1)

    async def test_the_sweep_begins_a_job_that_the_queue_never_heard_of(
        self, service: InProcess, handler: Handler
    ) -> None:
        handler.release.set()
        job = await start(service, hurry=False)
        assert (await ended(service, job))["status"] == "succeeded"

    async def test_pages_follow_each_other_and_heed_their_filters(self, idle: InProcess) -> None:
        made = [str((await start(idle, kind=kind)).id) for kind in (KIND, JobWork.INDEX_MIGRATION, KIND)]
        first = (await idle.client.get("/jobs", params={"limit": 2})).json()
        second = (await idle.client.get("/jobs", params={"limit": 2, "cursor": first["next_cursor"]})).json()
        assert [one["id"] for page in (first, second) for one in page["items"]] == made
        assert second["next_cursor"] is None
        some = (await idle.client.get("/jobs", params={"status": "queued", "kind": "index_migration"})).json()
        assert [one["id"] for one in some["items"]] == [made[1]]
        assert (await idle.client.get("/jobs", params={"status": "failed"})).json()["items"] == []
        other = await idle.client.get("/jobs", params={"status": "queued", "cursor": first["next_cursor"]})
        is_problem(other, 422, "invalid_cursor")

    @pytest.mark.parametrize("name", ["status", "kind"])
    async def test_a_filter_that_is_none_is_refused_by_name(self, idle: InProcess, name: str) -> None:
        is_problem(await idle.client.get("/jobs", params={name: "x"}), 422, "invalid_value", field=name)

    async def test_anothers_jobs_are_not_found(self, idle: InProcess) -> None:
        async with idle.container(scope=Scope.REQUEST) as unit:
            theirs = (await (await unit.get(Bootstrap))(name="theirs")).workspace.id
        job = await start(idle, workspace=theirs)
        for path in (f"/jobs/{job.id}", f"/jobs/{job.id}/events", f"/jobs/{NOBODY}", f"/jobs/{NOBODY}/events"):
            is_problem(await idle.client.get(path), 404, "job_not_found")
        for one in (job.id, NOBODY):
            is_problem(await idle.client.post(f"/jobs/{one}/cancel"), 404, "job_not_found")
        assert (await idle.client.get("/jobs")).json()["items"] == []


class TestCancel:
    async def test_one_that_waits_is_cancelled_at_once_and_only_once(self, idle: InProcess) -> None:
        path = f"/jobs/{(await start(idle)).id}"
        answer = await idle.client.post(f"{path}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        is_problem(await idle.client.post(f"{path}/cancel"), 409, "job_ended")
        assert (await idle.client.get(path)).json() == answer.json()

    async def test_one_that_runs_ends_soon(self, database_url: str, tmp_path: Path) -> None:
        async def work(_job: Job, progress: ReportProgress) -> Mapping[str, object]:
            done = 0
            while True:
                done += 1
                await progress(done)
                await asyncio.sleep(0.01)

        counting = Handler(work)
        async with serving(database_url, tmp_path, counting) as service:
            job = await start(service)
            await counting.begun.wait()
            answer = (await service.client.post(f"/jobs/{job.id}/cancel")).json()
            assert (answer["status"], answer["cancel_requested"]) == ("running", True)
            assert (await ended(service, job))["status"] == "cancelled"


class TestEvents:
    async def test_progress_is_heard_to_the_end(self, service: InProcess, handler: Handler) -> None:
        job = await start(service)
        listening = asyncio.create_task(service.client.get(f"/jobs/{job.id}/events"))
        await handler.begun.wait()
        handler.release.set()
        answer = await listening
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        heard = events(answer.text)
        assert heard[-1] == await ended(service, job)
        assert [one["status"] for one in heard] == sorted(
            {one["status"] for one in heard}, key=["queued", "running", "succeeded"].index
        )

    async def test_a_job_that_has_ended_is_told_and_nothing_more(self, idle: InProcess) -> None:
        path = f"/jobs/{(await start(idle)).id}"
        await idle.client.post(f"{path}/cancel")
        assert [one["status"] for one in events((await idle.client.get(f"{path}/events")).text)] == ["cancelled"]

    async def test_a_revoked_key_and_a_lost_role_end_the_watch(self, idle: InProcess) -> None:
        job = await start(idle)
        path = f"/jobs/{job.id}/events"
        key = (await idle.client.post("/api-keys", json={"name": "x", "scopes": ["read"]})).json()
        member = await sign_in(idle.container, roles={idle.workspace: Role.VIEWER})
        owner = await sign_in(idle.container, roles={idle.workspace: Role.OWNER})
        async with (
            caller(idle, {"X-API-Key": key["api_key"]}) as by_key,
            caller(idle, member.headers) as by_user,
            caller(idle, owner.headers) as manager,
            asyncio.timeout(30),
        ):
            watches = [asyncio.create_task(one.get(path)) for one in (by_key, by_user)]
            await asyncio.sleep(2)
            assert not any(watch.done() for watch in watches)
            assert (await idle.client.delete(f"/api-keys/{key['id']}")).status_code == 204
            removed = await manager.delete(f"/workspaces/{idle.workspace}/members/{member.user}")
            assert removed.status_code == 204, removed.text
            for watch in watches:
                assert [one["status"] for one in events((await watch).text)] == ["queued"]

    async def test_a_client_that_goes_ends_the_watch(self, idle: InProcess) -> None:
        job = await start(idle)
        heard = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not asked:
                asked.append(True)
                return {"type": "http.request", "body": b"", "more_body": False}
            await heard.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.body":
                heard.set()

        asked: list[bool] = []
        async with asyncio.timeout(30):
            await idle.app(called(idle.app, f"/api/v1/jobs/{job.id}/events", idle.client.headers), receive, send)  # type: ignore[arg-type]  # ASGI as it is
        assert heard.is_set()


def called(app: Litestar, path: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 - an ASGI scope
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "app": app,
        "litestar_app": app,
    }


class TestRespondAsync:
    @pytest.mark.parametrize(
        ("prefer", "wanted"),
        [
            ([], False),
            (["respond-async"], True),
            (["Respond-Async; wait=10"], True),
            (["return=minimal, respond-async"], True),
            (["return=minimal", "respond-async"], True),
            (["respond-asynchronously"], False),
            (["wait=respond-async"], False),
        ],
    )
    def test_the_preference_is_read_as_it_may_be_written(self, prefer: list[str], *, wanted: bool) -> None:
        scope = {"type": "http", "headers": [(b"prefer", one.encode()) for one in prefer]}
        assert wants_job(Request(scope)) is wanted  # type: ignore[arg-type]  # the part of a scope that is read

    async def test_the_answer_says_where_the_job_is(self, idle: InProcess) -> None:
        job = await start(idle)
        answer = accepted(job)
        assert (answer.status_code, answer.content.status) == (202, "queued")
        assert answer.headers["Location"] == f"/api/v1/jobs/{job.id}"
        assert answer.headers["Preference-Applied"] == "respond-async"
