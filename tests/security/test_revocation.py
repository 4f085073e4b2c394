import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from litestar.exceptions import LitestarException

from adapters.persistence.audit_log import SqlAuditLog
from adapters.persistence.notices import LINE, SqlListener
from domain.audit import AuditEntry
from domain.errors import CredentialInvalid
from domain.permission import Role
from entrypoints.http import access
from entrypoints.http.access import AGAIN_SECONDS
from tests.conftest import execute
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import caller, sign_in
from tests.e2e.wire import is_problem
from tests.e2e.with_jobs import WithJobs
from tests.security.accounts import OTHER_PASSWORD, PASSWORD

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
    async with asyncio.timeout(30.0):
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


async def test_what_ends_while_a_body_is_on_its_way_is_refused(nodes: tuple[InProcess, InProcess]) -> None:
    here, there = nodes
    key = (await here.client.post("/api-keys", json={"name": "x", "scopes": ["manage"]})).json()
    admin = await sign_in(here.container, roles={here.workspace: Role.ADMIN})
    owner = await sign_in(here.container, roles={here.workspace: Role.OWNER})

    async def revoke() -> None:
        assert (await here.client.delete(f"/api-keys/{key['id']}")).status_code == 204

    async def lower() -> None:
        async with caller(here, owner.headers) as owning:
            path = f"/workspaces/{here.workspace}/members/{admin.user}"
            assert (await owning.patch(path, json={"role": "viewer"})).status_code == 200

    for headers, end, code in (
        ({"X-API-Key": key["api_key"]}, revoke, "credential_invalid"),
        (admin.headers, lower, "role_missing"),
    ):

        async def halves(end: Callable[[], Awaitable[None]] = end) -> AsyncIterator[bytes]:
            yield b'{"name": "a way back", '
            await end()
            await asyncio.sleep(AGAIN_SECONDS)
            yield b'"scopes": ["manage"]}'

        async with caller(there, headers) as client:
            answer = await client.post("/api-keys", content=halves(), headers={"Content-Type": "application/json"})
        assert answer.json()["code"] == code
    names = [one["name"] for one in (await here.client.get("/api-keys")).json()["items"]]
    assert "a way back" not in names


async def test_an_export_breaks_off_where_whoever_asked_may_have_it_no_longer(
    nodes: tuple[InProcess, InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = nodes
    monkeypatch.setattr(access, "AGAIN_SECONDS", 0.0)
    key = (await here.client.post("/api-keys", json={"name": "x", "scopes": ["manage"]})).json()
    async with caller(here, {"X-API-Key": key["api_key"]}) as client:
        whole = await client.get("/audit/export")
        assert whole.content.count(b"\n") > 2
        real = SqlAuditLog.entries

        async def with_an_end(*args: object, **named: object) -> AsyncIterator[AuditEntry]:
            async for entry in real(*args, **named):  # type: ignore[arg-type]  # passed on
                yield entry
                await here.client.delete(f"/api-keys/{key['id']}")

        monkeypatch.setattr(SqlAuditLog, "entries", with_an_end)
        with pytest.raises(LitestarException) as broken:
            await client.get("/audit/export")
        assert CredentialInvalid.__name__ in repr(broken.value.__cause__)


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


async def somebody(node: InProcess) -> dict[str, str]:
    """Make an account with a password in the node's workspace; return its id and the tokens of a login."""
    owner = await sign_in(node.container, roles={node.workspace: Role.OWNER}, administrator=True)
    async with caller(node, owner.headers) as root:
        made = await root.post("/users", json={"email": "ada@example.org", "password": PASSWORD})
        user: str = made.json()["user"]["id"]
        added = await root.post(f"/workspaces/{node.workspace}/members", json={"user_id": user, "role": "viewer"})
        assert added.status_code == 201, added.text
        tokens = await root.post("/auth/login", json={"email": "ada@example.org", "password": PASSWORD})
    return {"user": user, **tokens.json()}


async def changes_the_password(node: InProcess, ada: dict[str, str]) -> httpx.Response:
    """From another session of theirs, which goes on."""
    async with caller(node, bearer(ada)) as client:
        tokens = (await client.post("/auth/login", json={"email": "ada@example.org", "password": PASSWORD})).json()
    async with caller(node, bearer(tokens)) as client:
        body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        answer = await client.post("/auth/password", json=body)
        assert (await client.get("/auth/me")).status_code == 200
        return answer


async def resets_the_password(node: InProcess, ada: dict[str, str]) -> httpx.Response:
    async with caller(node, (await sign_in(node.container, administrator=True)).headers) as root:
        link = (await root.post(f"/users/{ada['user']}/password-link")).json()
        return await root.post("/auth/password/reset", json={"token": link["token"], "password": OTHER_PASSWORD})


async def is_deleted(node: InProcess, ada: dict[str, str]) -> httpx.Response:
    async with caller(node, (await sign_in(node.container, administrator=True)).headers) as root:
        return await root.delete(f"/users/{ada['user']}")


async def ends_the_session(node: InProcess, ada: dict[str, str]) -> httpx.Response:
    async with caller(node, bearer(ada)) as client:
        (session,) = (await client.get("/auth/sessions")).json()["items"]
        return await client.delete(f"/auth/sessions/{session['id']}")


async def logs_out(node: InProcess, ada: dict[str, str]) -> httpx.Response:
    async with caller(node, bearer(ada)) as client:
        return await client.post("/auth/logout", json={"refresh_token": ada["refresh_token"]})


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


@pytest.mark.parametrize(
    "happens",
    [changes_the_password, resets_the_password, is_deleted, ends_the_session, logs_out],
    ids=lambda one: one.__name__,
)
async def test_an_access_token_ends_with_what_it_hangs_on_on_every_node(
    nodes: tuple[InProcess, InProcess], happens: Callable[[InProcess, dict[str, str]], Awaitable[httpx.Response]]
) -> None:
    here, there = nodes
    ada = await somebody(here)
    async with caller(there, bearer(ada)) as client:
        await remembered(lambda: client.get("/galleries"))
        answer = await happens(here, ada)
        assert answer.is_success, answer.text
        await refused_within(lambda: client.get("/galleries"), "credential_invalid")
        is_problem(
            await client.post("/auth/refresh", json={"refresh_token": ada["refresh_token"]}), 401, "credential_invalid"
        )


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


async def test_a_change_that_no_line_tells_of_is_seen_within_a_second(
    nodes: tuple[InProcess, InProcess], database_url: str
) -> None:
    here, there = nodes
    key = (await here.client.post("/api-keys", json={"name": "x", "scopes": ["read"]})).json()
    async with caller(there, {"X-API-Key": key["api_key"]}) as client:
        await remembered(lambda: client.get("/galleries"))
        # As over a line that is dead and was not cut: nobody is told, and the listener believes that it listens.
        await execute(database_url, f"UPDATE api_keys SET revoked_at = now() WHERE id = '{key['id']}'")  # noqa: S608 - an id of ours
        assert (await there.container.get(SqlListener)).listening
        await refused_within(lambda: client.get("/galleries"), "credential_invalid")


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
