import base64
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
from dishka import Scope as Lifetime
from litestar.handlers import HTTPRouteHandler
from sqlalchemy import text

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.database import engine
from adapters.persistence.tables import METADATA
from application.ports.transaction import Transaction
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.keys.issue_key import IssueKey
from domain.job import JobWork
from domain.permission import Permission, Role, Scope
from entrypoints.http.access import PERMISSION_OPTION
from entrypoints.http.app import API
from entrypoints.settings import RateLimitSettings
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import another_workspace, caller, sign_in
from tests.e2e.with_jobs import WithJobs

NOBODY: Final = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"
ADA: Final = MemoryFaceEmbedder.picture("ada")
ENCODED: Final = base64.b64encode(ADA).decode()

MOVES: Final = {"audit_entries", "audit_heads", "answers"}
"""Tables that refused and answered calls write to by right."""
ITEMS: Final = {"enrol_batch"}
"""Answered 200, with a problem an item."""


@dataclass(frozen=True, slots=True)
class Mine:
    """One of everything, in a workspace."""

    service: InProcess
    url: str
    ids: dict[str, str]
    """By the name of the parameter that takes it."""


@pytest.fixture(scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolation")


@pytest.fixture
async def mine(database_url: str, _folder: Path) -> AsyncIterator[Mine]:
    """A service with one of everything."""
    settings = msgspec.structs.replace(
        settings_for(database_url, _folder, _folder),
        rate_limits=RateLimitSettings(key="0", user="0", address="0", auth="0"),
    )
    async with in_process(settings, WithJobs(), work=False) as service:
        client = service.client
        gallery = (await client.post("/galleries", json={"name": "doors"})).json()["id"]
        made = await client.post(f"/galleries/{gallery}/references", json={"image": ENCODED, "external_id": "emp-17"})
        assert made.status_code == 201, made.text
        other = (await client.post(f"/galleries/{gallery}/people", json={})).json()["id"]
        key = (await client.post("/api-keys", json={"name": "x", "scopes": ["read"]})).json()["id"]
        user = await sign_in(service.container, roles={service.workspace: Role.OWNER})
        owner = await sign_in(service.container, roles={service.workspace: Role.OWNER})
        async with caller(service, owner.headers) as asking:
            invited = await asking.post(f"/workspaces/{service.workspace}/invitations", json={"role": "viewer"})
        async with service.container(scope=Lifetime.REQUEST) as unit:
            job = await (await unit.get(StartJob))(
                workspace=service.workspace, kind=JobWork.BULK_ENROLMENT, parameters={"gallery": gallery}
            )
            await (await unit.get(Transaction)).commit()
        yield Mine(
            service,
            database_url,
            {
                "gallery": gallery,
                "person": made.json()["person"]["id"],
                "reference": made.json()["accepted"][0]["id"],
                "other": other,
                "key": key,
                "job": str(job.id),
                "workspace": str(service.workspace),
                "user": str(user.user),
                "session": str(user.session),
                "invitation": invited.json()["id"],
            },
        )


def method_of(route: HTTPRouteHandler) -> str:
    return next(iter(route.http_methods))


def template_of(route: HTTPRouteHandler) -> str:
    (template,) = route.paths
    return template


def parameters(route: HTTPRouteHandler) -> set[str]:
    return set(re.findall(r"\{(\w+)", template_of(route)))


def path_of(route: HTTPRouteHandler, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: ids[found[1]], template_of(route))


def body_for(route: HTTPRouteHandler, ids: dict[str, str]) -> dict[str, Any] | None:
    """What the route takes, so that nothing but the ids can be wrong."""
    if method_of(route) in {"GET", "DELETE"}:
        return None
    wanted: dict[str, dict[str, Any]] = {
        "enrol_references": {"image": ENCODED},
        "enrol_batch": {"items": [{"image": ENCODED}]},
        "merge_people": {"person_id": ids["other"]},
        "unmerge_people": {"person_id": ids["other"]},
        "add_member": {"user_id": ids["user"], "role": "viewer"},
        "change_member": {"role": "viewer"},
        "invite_member": {"role": "viewer"},
        "update_workspace": {"name": "taken over"},
    }
    return wanted.get(route.handler_name, {})


WITH_IDS: Final = [
    route
    for route in API
    if parameters(route) and route.opt[PERMISSION_OPTION] not in {Permission.OPEN, Permission.ADMINISTER}
]


async def rows(url: str) -> dict[str, str]:
    """Return a digest of each table as it is."""
    pool = engine(url, connections=1, timeout=30.0, autocommit=True)
    found = {}
    try:
        async with pool.connect() as connection:
            for table in METADATA.sorted_tables:
                if table.name not in MOVES:
                    statement = text(f"SELECT (to_jsonb(t) - 'last_used_at')::text FROM \"{table.name}\" t ORDER BY 1")  # noqa: S608 - our tables' names
                    lines = (await connection.execute(statement)).scalars().all()
                    found[table.name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    finally:
        await pool.dispose()
    return found


async def asked(
    client: httpx.AsyncClient, route: HTTPRouteHandler, ids: dict[str, str], body: dict[str, Any] | None
) -> tuple[int, str | None]:
    answer = await client.request(method_of(route), path_of(route, ids), json=body)
    said = answer.json() if answer.headers.get("Content-Type", "").endswith("json") else {}
    if route.handler_name in ITEMS and answer.status_code == 200:
        (item,) = said["items"]
        return item["problem"]["status"], item["problem"]["code"]
    return answer.status_code, said.get("code")


@pytest.mark.parametrize("as_key", [True, False], ids=["a key", "a member"])
async def test_anothers_ids_are_answered_like_ids_that_nobody_has(mine: Mine, as_key: bool) -> None:  # noqa: FBT001 - a parameter
    unknown = {name for route in WITH_IDS for name in parameters(route)} - set(mine.ids)
    assert unknown == set()  # a new kind of id is to be made above
    container = mine.service.container
    foreign = await another_workspace(container)
    if as_key:
        async with container(scope=Lifetime.REQUEST) as unit:
            issued = await (await unit.get(IssueKey))(workspace=foreign, name="x", scopes=frozenset(Scope))
            await (await unit.get(Transaction)).commit()
        headers = {"X-API-Key": issued.secret}
    else:
        headers = (await sign_in(container, roles={foreign: Role.OWNER})).headers
    before = await rows(mine.url)
    wrong = []
    async with caller(mine.service, headers) as stranger:
        for route in WITH_IDS:
            if as_key and route.opt[PERMISSION_OPTION] is Permission.ACCOUNT and "workspace" not in parameters(route):
                continue  # no key gets there, whatever the id: tests/security/test_route_matrix.py
            # In another's gallery, and in one's own.
            for gallery in {mine.ids["gallery"], "default"} if "gallery" in parameters(route) else {""}:
                if gallery == "default" and parameters(route) == {"gallery"}:
                    continue
                ids = {**mine.ids, "gallery": gallery}
                nobodys = dict.fromkeys(mine.ids, NOBODY) | ({"gallery": gallery} if gallery == "default" else {})
                body = body_for(route, mine.ids)
                found, same = await asked(stranger, route, ids, body), await asked(stranger, route, nobodys, body)
                if found[0] != 404 or found != same:
                    wrong.append((method_of(route), path_of(route, ids), found, same))
    assert wrong == []
    assert await rows(mine.url) == before


async def test_a_workspace_that_is_anothers_cannot_be_matched_against(mine: Mine) -> None:
    foreign = await another_workspace(mine.service.container)
    user = await sign_in(mine.service.container, roles={foreign: Role.OWNER})
    async with caller(mine.service, user.headers) as stranger:
        for claim in ({"person_id": mine.ids["person"]}, {"reference_id": mine.ids["reference"]}):
            for gallery in (mine.ids["gallery"], "doors", "default"):
                answer = await stranger.post("/verify", json={"image": ENCODED, "gallery": gallery, **claim})
                assert answer.status_code == 404
        for gallery in (mine.ids["gallery"], "doors"):
            assert (await stranger.post("/search", json={"image": ENCODED, "gallery": gallery})).status_code == 404
        for people in ({}, {"people": [mine.ids["person"]]}):
            found = await stranger.post("/search", json={"image": ENCODED, "threshold": -1, **people})
            assert found.json()["faces"][0]["matches"] == []
        into = {"image": ENCODED, "person_id": mine.ids["person"]}
        assert (await stranger.post("/galleries/default/references", json=into)).status_code == 404
        own = (await stranger.post("/galleries/default/people", json={})).json()["id"]
        merge = {"person_id": mine.ids["person"]}
        assert (await stranger.post(f"/galleries/default/people/{own}/merge", json=merge)).status_code == 404
        for listed in ("/galleries", "/jobs", "/api-keys"):
            assert not set(mine.ids.values()) & {one["id"] for one in (await stranger.get(listed)).json()["items"]}
        headers = {"X-Workspace-Id": mine.ids["workspace"]}
        assert (await stranger.get("/galleries", headers=headers)).status_code == 404
