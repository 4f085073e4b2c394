import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from dishka import Scope

from adapters.persistence.notices import LINE, SqlListener
from application.ports.accounts import SessionRepository
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from domain.permission import Role
from tests.conftest import execute
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import SignedIn, caller, sign_in
from tests.e2e.wire import is_problem
from tests.e2e.with_jobs import WithJobs

WITHIN = 1.0
"""Seconds, by the word of the documents; it is milliseconds where the line is up."""


@pytest.fixture
async def nodes(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[InProcess, InProcess]]:
    """Two nodes of one installation."""
    settings = settings_for(database_url, tmp_path, tmp_path)
    async with (
        in_process(settings, WithJobs(), work=False) as one,
        in_process(settings, WithJobs(), work=False) as other,
    ):
        for node in (one, other):
            await listens(node)
        yield one, other


async def listens(node: InProcess, *, up: bool = True) -> None:
    listener = await node.container.get(SqlListener)
    async with asyncio.timeout(10.0):
        while listener.listening is not up:  # noqa: ASYNC110 - what is awaited has no event to set
            await asyncio.sleep(0.005)


async def refused_within(call: Callable[[], Awaitable[httpx.Response]], code: str) -> None:
    """Call until it is refused; remembered again and again, it must be within the second all the same."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    while (answer := await call()).is_success:
        assert loop.time() - since < WITHIN
    assert answer.json()["code"] == code


async def remembered(call: Callable[[], Awaitable[httpx.Response]]) -> None:
    for _ in range(3):
        assert (await call()).status_code == 200


async def test_a_revoked_key_is_refused_on_every_node(nodes: tuple[InProcess, InProcess]) -> None:
    here, there = nodes
    key = (await here.client.post("/api-keys", json={"name": "x", "scopes": ["read"]})).json()
    async with caller(there, {"X-API-Key": key["api_key"]}) as client:
        await remembered(lambda: client.get("/galleries"))
        assert (await here.client.delete(f"/api-keys/{key['id']}")).status_code == 204
        await refused_within(lambda: client.get("/galleries"), "credential_invalid")


async def test_a_key_that_was_rotated_without_an_overlap_is_refused_on_every_node(
    nodes: tuple[InProcess, InProcess],
) -> None:
    here, there = nodes
    key = (await here.client.post("/api-keys", json={"name": "x", "scopes": ["read"]})).json()
    async with caller(there, {"X-API-Key": key["api_key"]}) as client:
        await remembered(lambda: client.get("/galleries"))
        await here.client.post(f"/api-keys/{key['id']}/rotate", json={"overlap_seconds": 0})
        await refused_within(lambda: client.get("/galleries"), "credential_invalid")


async def test_a_lost_role_is_lost_on_every_node(nodes: tuple[InProcess, InProcess]) -> None:
    here, there = nodes
    owner = await sign_in(here.container, roles={here.workspace: Role.OWNER})
    admin = await sign_in(here.container, roles={here.workspace: Role.ADMIN})
    members = f"/workspaces/{here.workspace}/members"
    async with caller(here, owner.headers) as owning, caller(there, admin.headers) as client:
        await remembered(lambda: client.get(members))
        await owning.patch(f"{members}/{admin.user}", json={"role": "viewer"})
        await refused_within(lambda: client.get(members), "role_missing")
        await remembered(lambda: client.get("/galleries"))
        await owning.delete(f"{members}/{admin.user}")
        await refused_within(lambda: client.get("/galleries"), "workspace_unclear")


async def ended(node: InProcess, user: SignedIn) -> None:
    """End all sessions of a user, as a password change does."""
    async with node.container(scope=Scope.REQUEST) as unit:
        now = (await unit.get(Clock)).now()
        await (await unit.get(SessionRepository)).end(user.user, now=now)
        await (await unit.get(Notices)).tell(Topic.CREDENTIALS)
        await (await unit.get(Transaction)).commit()


async def test_a_session_that_ended_ends_its_access_token_on_every_node(nodes: tuple[InProcess, InProcess]) -> None:
    here, there = nodes
    user = await sign_in(here.container, roles={here.workspace: Role.VIEWER})
    async with caller(there, user.headers) as client:
        await remembered(lambda: client.get("/galleries"))
        await ended(here, user)
        await refused_within(lambda: client.get("/galleries"), "credential_invalid")


async def test_a_node_whose_line_is_cut_remembers_nothing(
    nodes: tuple[InProcess, InProcess], database_url: str
) -> None:
    here, there = nodes
    key = (await here.client.post("/api-keys", json={"name": "x", "scopes": ["read"]})).json()
    user = await sign_in(here.container, roles={here.workspace: Role.VIEWER})
    async with (
        caller(there, {"X-API-Key": key["api_key"]}) as keyed,
        caller(there, user.headers) as signed_in,
    ):
        for client in (keyed, signed_in):
            await remembered(lambda client=client: client.get("/galleries"))  # type: ignore[misc]  # bound at once
        # The line is cut and stays so: the change is made by somebody who tells nobody.
        await (await there.container.get(SqlListener)).aclose()
        await execute(database_url, f"UPDATE api_keys SET revoked_at = now() WHERE id = '{key['id']}'")  # noqa: S608 - an id of ours
        await execute(database_url, f"UPDATE sessions SET ended_at = now() WHERE id = '{user.session}'")  # noqa: S608 - the same
        for client in (keyed, signed_in):
            is_problem(await client.get("/galleries"), 401, "credential_invalid")


async def test_a_line_that_the_server_cuts_is_up_again_and_carries_the_next_revocation(
    nodes: tuple[InProcess, InProcess], database_url: str
) -> None:
    here, there = nodes
    key = (await here.client.post("/api-keys", json={"name": "x", "scopes": ["read"]})).json()
    async with caller(there, {"X-API-Key": key["api_key"]}) as client:
        await execute(
            database_url,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{LINE}'"  # noqa: S608 - a name of ours
            " AND datname = current_database()",
        )
        await listens(there, up=False)
        await listens(there)
        await remembered(lambda: client.get("/galleries"))
        await here.client.delete(f"/api-keys/{key['id']}")
        await refused_within(lambda: client.get("/galleries"), "credential_invalid")
