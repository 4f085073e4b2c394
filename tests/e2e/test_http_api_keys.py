import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from dishka import Scope as Lifetime

from application.ports.transaction import Transaction
from application.use_cases.jobs.start_job import StartJob
from domain.credential import looks_like_key
from domain.job import JobWork
from domain.permission import Role, Scope
from tests.conftest import another_database, execute
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import another_workspace, caller, in_another_workspace, sign_in
from tests.e2e.wire import is_problem
from tests.e2e.with_jobs import WithJobs

NOBODY = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"


@pytest.fixture(scope="module")
async def _running(
    postgres_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcess]:
    folder = tmp_path_factory.mktemp("api_keys")
    async with (
        another_database(postgres_url, migrated_url) as url,
        in_process(settings_for(url, folder, folder), WithJobs(), work=False) as running,
    ):
        yield running


@pytest.fixture
async def service(_running: InProcess) -> AsyncIterator[InProcess]:
    """One for all, in another workspace each time."""
    async with in_another_workspace(_running) as mine:
        yield mine


async def made(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    answer = await client.post("/api-keys", json={"name": "door", "scopes": ["read"], **fields})
    assert answer.status_code == 201, answer.text
    answered: dict[str, Any] = answer.json()
    return answered


def keyed(service: InProcess, key: Mapping[str, Any]) -> httpx.AsyncClient:
    return caller(service, {"X-API-Key": key["api_key"]})


async def test_a_key_is_shown_once_and_does_what_its_scopes_say(service: InProcess) -> None:
    key = await made(service.client, scopes=["read", "verify"])
    assert looks_like_key(key["api_key"])
    assert key["api_key"].startswith(key["prefix"])
    shown = (await service.client.get(f"/api-keys/{key['id']}")).json()
    assert "api_key" not in shown
    assert shown == {name: value for name, value in key.items() if name != "api_key"}
    listed = (await service.client.get("/api-keys")).text
    assert key["id"] in listed
    assert key["api_key"] not in listed
    async with keyed(service, key) as client:
        assert (await client.get("/galleries")).status_code == 200
        is_problem(await client.post("/galleries", json={"name": "x"}), 403, "scope_missing")
        is_problem(await client.get("/workspaces"), 401, "credential_missing")


async def test_a_revoked_key_is_refused_at_once_and_stays_in_the_list(service: InProcess) -> None:
    key = await made(service.client)
    async with keyed(service, key) as client:
        assert (await client.get("/galleries")).status_code == 200
        for _ in range(2):
            assert (await service.client.delete(f"/api-keys/{key['id']}")).status_code == 204
        is_problem(await client.get("/galleries"), 401, "credential_invalid")
    assert (await service.client.get(f"/api-keys/{key['id']}")).json()["revoked_at"] is not None
    is_problem(await service.client.post(f"/api-keys/{key['id']}/rotate", json={}), 409, "api_key_revoked")


async def test_a_rotated_key_is_good_for_the_overlap(service: InProcess) -> None:
    default = (await service.client.get("/galleries/default")).json()["id"]
    ends = (datetime.now(UTC) + timedelta(days=90)).isoformat()
    key = await made(service.client, scopes=["read", "search"], galleries=["default"], expires_at=ends)
    before = datetime.now(UTC)
    new = (await service.client.post(f"/api-keys/{key['id']}/rotate", json={})).json()
    assert new["rotated_from"] == key["id"]
    for same in ("name", "scopes", "galleries", "expires_at"):
        assert new[same] == key[same]
    assert new["galleries"] == [default]
    old = (await service.client.get(f"/api-keys/{key['id']}")).json()
    assert timedelta(hours=23) < datetime.fromisoformat(old["expires_at"]) - before < timedelta(hours=25)
    async with keyed(service, key) as former, keyed(service, new) as latter:
        assert (await former.get("/galleries")).status_code == 200
        assert (await latter.get("/galleries")).status_code == 200
        ended = await service.client.post(f"/api-keys/{key['id']}/rotate", json={"overlap_seconds": 0})
        assert ended.status_code == 201
        is_problem(await former.get("/galleries"), 401, "credential_invalid")
        assert (await latter.get("/galleries")).status_code == 200
    for seconds in (-1, 30 * 86400 + 1):
        refused = await service.client.post(f"/api-keys/{new['id']}/rotate", json={"overlap_seconds": seconds})
        is_problem(refused, 422, "invalid_value", field="overlap_seconds")


async def test_a_secret_is_never_remembered_for_an_idempotency_key(service: InProcess) -> None:
    key = await made(service.client)
    for path, body in (("/api-keys", {"name": "x", "scopes": ["read"]}), (f"/api-keys/{key['id']}/rotate", {})):
        refused = await service.client.post(path, json=body, headers={"Idempotency-Key": "once"})
        is_problem(refused, 422, "invalid_value", field="Idempotency-Key")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"galleries": []}, "galleries"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2120-01-01T00:00:00"}, "expires_at"),
        ({"permissions": ["everything"]}, "permissions"),
    ],
)
async def test_what_a_key_cannot_be_is_said(service: InProcess, fields: dict[str, Any], field: str) -> None:
    answer = await service.client.post("/api-keys", json={"name": "door", "scopes": ["read"], **fields})
    is_problem(answer, 422, "invalid_value", field=field)


async def test_nobody_makes_a_key_that_may_do_more(service: InProcess) -> None:
    ends = datetime.now(UTC) + timedelta(days=1)
    maker = await made(service.client, scopes=["manage", "read"], expires_at=ends.isoformat())
    stronger = await made(service.client, scopes=["manage", "embed"])
    async with keyed(service, maker) as client:
        answer = await client.post("/api-keys", json={"name": "x", "scopes": ["read", "embed"]})
        is_problem(answer, 403, "scope_missing")
        is_problem(await client.post(f"/api-keys/{stronger['id']}/rotate", json={}), 403, "scope_missing")
        is_problem(await client.delete(f"/api-keys/{stronger['id']}"), 403, "scope_missing")
        later = {"name": "x", "scopes": ["read"], "expires_at": (ends + timedelta(days=1)).isoformat()}
        is_problem(await client.post("/api-keys", json=later), 422, "invalid_value", field="expires_at")
        # Where nothing is said, it ends with the one that made it.
        assert (await made(client))["expires_at"] == maker["expires_at"]


async def test_a_key_that_rotates_another_is_not_outlived_by_what_it_gets(service: InProcess) -> None:
    ends = datetime.now(UTC) + timedelta(minutes=5)
    short = await made(service.client, scopes=["manage", "read"], expires_at=ends.isoformat())
    for expires_at in (None, (ends + timedelta(days=1)).isoformat()):
        endless = await made(service.client, expires_at=expires_at)
        async with keyed(service, short) as client:
            new = await client.post(f"/api-keys/{endless['id']}/rotate", json={"overlap_seconds": 0})
        assert new.status_code == 201
        assert new.json()["expires_at"] == short["expires_at"]


async def test_a_rotated_key_has_no_say_over_any_but_itself(service: InProcess) -> None:
    leaked = await made(service.client, scopes=["manage", "read"])
    second = (await service.client.post(f"/api-keys/{leaked['id']}/rotate", json={})).json()
    third = (await service.client.post(f"/api-keys/{second['id']}/rotate", json={})).json()
    other = await made(service.client)
    async with keyed(service, leaked) as client:
        for one in (leaked, second, third, other):
            is_problem(await client.post(f"/api-keys/{one['id']}/rotate", json={}), 403, "scope_missing")
        for one in (second, third, other):
            is_problem(await client.delete(f"/api-keys/{one['id']}"), 403, "scope_missing")
        # Else it would make one that has a say.
        is_problem(await client.post("/api-keys", json={"name": "x", "scopes": ["manage"]}), 403, "scope_missing")
        assert (await client.get("/galleries")).status_code == 200
    async with keyed(service, third) as client:
        assert (await client.get("/galleries")).status_code == 200
        assert (await client.delete(f"/api-keys/{other['id']}")).status_code == 204
    async with keyed(service, leaked) as client:
        assert (await client.delete(f"/api-keys/{leaked['id']}")).status_code == 204
        is_problem(await client.get("/galleries"), 401, "credential_invalid")


async def test_members_give_what_their_role_may_give(service: InProcess) -> None:
    everything = [scope.value for scope in Scope]
    for role in Role:
        member = await sign_in(service.container, roles={service.workspace: role})
        async with caller(service, member.headers) as client:
            answer = await client.post("/api-keys", json={"name": "x", "scopes": everything})
            if role in {Role.OWNER, Role.ADMIN}:
                assert answer.status_code == 201
                assert answer.json()["created_by"] == str(member.user)
            else:
                is_problem(answer, 403, "role_missing")


class TestLimitedKeys:
    """A key that is for some galleries alone."""

    @pytest.fixture
    async def limited(self, service: InProcess) -> AsyncIterator[httpx.AsyncClient]:
        """May do everything, in the gallery `mine`; `default` and `other` are there too."""
        for name in ("mine", "other"):
            assert (await service.client.post("/galleries", json={"name": name})).status_code == 201
        key = await made(service.client, scopes=[scope.value for scope in Scope], galleries=["mine"])
        async with keyed(service, key) as client:
            yield client

    async def test_it_sees_its_galleries_alone(self, limited: httpx.AsyncClient, service: InProcess) -> None:
        assert [one["name"] for one in (await limited.get("/galleries")).json()["items"]] == ["mine"]
        assert (await limited.get("/galleries/mine")).status_code == 200
        other = (await service.client.get("/galleries/other")).json()["id"]
        for named in ("other", other, "default", NOBODY):
            for path in ("", "/people", "/references", "/migration"):
                is_problem(await limited.get(f"/galleries/{named}{path}"), 404, "gallery_not_found")
            is_problem(await limited.patch(f"/galleries/{named}", json={"name": "x"}), 404, "gallery_not_found")
            is_problem(await limited.delete(f"/galleries/{named}"), 404, "gallery_not_found")
            is_problem(await limited.post(f"/galleries/{named}/people", json={}), 404, "gallery_not_found")
        is_problem(await limited.post("/galleries", json={"name": "new"}), 403, "scope_missing")

    async def test_it_matches_in_its_galleries_alone(self, limited: httpx.AsyncClient) -> None:
        probe = {"image": "AAAA", "gallery": "other"}
        is_problem(await limited.post("/search", json=probe), 404, "gallery_not_found")
        is_problem(await limited.post("/verify", json={**probe, "external_id": "x"}), 404, "gallery_not_found")
        is_problem(await limited.post("/search", json={"image": "AAAA"}), 404, "gallery_not_found")
        for path, item in (("/search/batch", probe), ("/verify/batch", {**probe, "external_id": "x"})):
            answer = (await limited.post(path, json={"items": [item, {**item, "gallery": "mine"}]})).json()
            codes = [one["problem"]["code"] for one in answer["items"]]
            assert codes[0] == "gallery_not_found"
            assert codes[1] != "gallery_not_found"

    async def test_a_gallery_that_took_over_the_name_is_not_there(
        self, limited: httpx.AsyncClient, service: InProcess
    ) -> None:
        await service.client.patch("/galleries/mine", json={"name": "renamed"})
        await service.client.patch("/galleries/other", json={"name": "mine"})
        is_problem(await limited.get("/galleries/mine"), 404, "gallery_not_found")
        assert (await limited.get("/galleries/renamed")).status_code == 200

    async def test_it_sees_the_jobs_of_its_galleries_alone(
        self, limited: httpx.AsyncClient, service: InProcess
    ) -> None:
        ids = {}
        for name in ("mine", "other"):
            gallery = (await service.client.get(f"/galleries/{name}")).json()["id"]
            for parameter in ("gallery", "gallery_id"):
                async with service.container(scope=Lifetime.REQUEST) as unit:
                    job = await (await unit.get(StartJob))(
                        workspace=service.workspace, kind=JobWork.BULK_ENROLMENT, parameters={parameter: gallery}
                    )
                    await (await unit.get(Transaction)).commit()
                ids[name, parameter] = str(job.id)
        seen = {one["id"] for one in (await limited.get("/jobs")).json()["items"]}
        assert seen == {job for (name, _), job in ids.items() if name == "mine"}
        assert len((await service.client.get("/jobs")).json()["items"]) == 4
        for (name, _), job in ids.items():
            if name == "mine":
                assert (await limited.get(f"/jobs/{job}")).status_code == 200
                assert (await limited.post(f"/jobs/{job}/cancel")).status_code == 200
            else:
                is_problem(await limited.get(f"/jobs/{job}"), 404, "job_not_found")
                is_problem(await limited.get(f"/jobs/{job}/events"), 404, "job_not_found")
                is_problem(await limited.post(f"/jobs/{job}/cancel"), 404, "job_not_found")
                assert (await service.client.get(f"/jobs/{job}")).json()["status"] == "queued"

    async def test_it_makes_and_ends_limited_keys_alone(self, limited: httpx.AsyncClient, service: InProcess) -> None:
        free = await made(service.client)
        wider = await made(service.client, galleries=["mine", "other"])
        narrow = await made(service.client, galleries=["mine"])
        for key in (free, wider):
            is_problem(await limited.get(f"/api-keys/{key['id']}"), 404, "api_key_not_found")
            is_problem(await limited.post(f"/api-keys/{key['id']}/rotate", json={}), 404, "api_key_not_found")
            is_problem(await limited.delete(f"/api-keys/{key['id']}"), 404, "api_key_not_found")
        seen = {one["id"] for one in (await limited.get("/api-keys")).json()["items"]}
        assert narrow["id"] in seen
        assert seen.isdisjoint({free["id"], wider["id"]})
        body = {"name": "x", "scopes": ["read"]}
        is_problem(await limited.post("/api-keys", json=body), 422, "invalid_value", field="galleries")
        is_problem(await limited.post("/api-keys", json={**body, "galleries": ["other"]}), 404, "gallery_not_found")
        assert (await limited.post("/api-keys", json={**body, "galleries": ["mine"]})).status_code == 201
        assert (await limited.delete(f"/api-keys/{narrow['id']}")).status_code == 204


async def test_anothers_keys_are_not_found(service: InProcess) -> None:
    key = await made(service.client)
    workspace = await another_workspace(service.container)
    stranger = await sign_in(service.container, roles={workspace: Role.OWNER})
    async with caller(service, stranger.headers) as client:
        for path in (f"/api-keys/{key['id']}", f"/api-keys/{NOBODY}"):
            is_problem(await client.get(path), 404, "api_key_not_found")
            is_problem(await client.delete(path), 404, "api_key_not_found")
            is_problem(await client.post(f"{path}/rotate", json={}), 404, "api_key_not_found")
        answer = await client.post("/api-keys", json={"name": "x", "scopes": ["read"], "galleries": [NOBODY]})
        is_problem(answer, 404, "gallery_not_found")
        assert (await client.get("/api-keys")).json()["items"] == []
    async with keyed(service, key) as mine:
        assert (await mine.get("/galleries")).status_code == 200


async def test_a_call_that_is_refused_is_no_use_of_a_key(database_url: str, tmp_path: Path) -> None:
    async with in_process(settings_for(database_url, tmp_path, tmp_path), WithJobs(), work=False) as service:
        expired, revoked = await made(service.client), await made(service.client)
        await execute(database_url, f"UPDATE api_keys SET expires_at = now() WHERE id = '{expired['id']}'")  # noqa: S608 - an id of ours
        assert (await service.client.delete(f"/api-keys/{revoked['id']}")).status_code == 204
        for key in (expired, revoked):
            async with keyed(service, key) as client:
                is_problem(await client.get("/galleries"), 401, "credential_invalid")
    async with in_process(settings_for(database_url, tmp_path, tmp_path), WithJobs(), work=False) as service:
        for key in (expired, revoked):
            assert (await service.client.get(f"/api-keys/{key['id']}")).json()["last_used_at"] is None


async def test_the_last_use_is_written_down_a_little_later(database_url: str, tmp_path: Path) -> None:
    async with in_process(settings_for(database_url, tmp_path, tmp_path), WithJobs(), work=False) as service:
        key = await made(service.client)
        assert key["last_used_at"] is None
        async with keyed(service, key) as client:
            assert (await client.get("/galleries")).status_code == 200
    # Whoever ends in order writes what is left.
    async with in_process(settings_for(database_url, tmp_path, tmp_path), WithJobs(), work=False) as service:
        used = datetime.fromisoformat((await service.client.get(f"/api-keys/{key['id']}")).json()["last_used_at"])
        assert timedelta(0) <= datetime.now(UTC) - used < timedelta(minutes=1)
        async with keyed(service, key) as client:
            assert (await client.get("/galleries")).status_code == 200
        await asyncio.sleep(0)
    async with in_process(settings_for(database_url, tmp_path, tmp_path), WithJobs(), work=False) as service:
        again = datetime.fromisoformat((await service.client.get(f"/api-keys/{key['id']}")).json()["last_used_at"])
        # A second use within a minute is not written.
        assert again == used
