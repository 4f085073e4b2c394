import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

import jwt
import pytest
from dishka import Scope as Lifetime
from litestar.handlers import HTTPRouteHandler

from application.ports.accounts import SessionRepository
from application.ports.transaction import Transaction
from application.use_cases.keys.issue_key import IssueKey
from domain.gallery import GalleryId
from domain.permission import IN_WORKSPACE, OF_ROLE, OF_SCOPE, Permission, Role, Scope, permissions_of
from domain.workspace import WorkspaceId
from entrypoints.http.access import PERMISSION_OPTION, guard
from entrypoints.http.app import API
from entrypoints.settings import Settings
from tests.conftest import another_database, execute
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import another_workspace, caller, sign_in, signed
from tests.e2e.with_jobs import WithJobs
from tests.security.house import with_rates

NOBODY: Final = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"
"""An id that nothing has, in whichever workspace: what is allowed may be called and changes nothing."""

Refusal = tuple[int, str]
Headers = Mapping[str, str]

MISSING: Final[Refusal] = (401, "credential_missing")
INVALID: Final[Refusal] = (401, "credential_invalid")
SCOPE: Final[Refusal] = (403, "scope_missing")
ROLE: Final[Refusal] = (403, "role_missing")
ADMINISTRATOR: Final[Refusal] = (403, "administrator_only")
ELSEWHERE: Final[Refusal] = (404, "workspace_not_found")
GALLERY: Final[Refusal] = (404, "gallery_not_found")
UNCLEAR: Final[Refusal] = (422, "workspace_unclear")

NEEDED_BY_NO_ROUTE: Final = {Permission.LIVENESS}
MAKES_A_GALLERY: Final = "create_gallery"


def needs(route: HTTPRouteHandler) -> Permission:
    return Permission(route.opt[PERMISSION_OPTION])


def method_of(route: HTTPRouteHandler) -> str:
    return next(iter(route.http_methods))


def template_of(route: HTTPRouteHandler) -> str:
    (template,) = route.paths
    return template


def names_workspace(route: HTTPRouteHandler) -> bool:
    return "{workspace:" in template_of(route)


def path_of(route: HTTPRouteHandler, workspace: WorkspaceId) -> str:
    """The route's path: in this workspace, in its default gallery, about nobody."""
    known = {"workspace": str(workspace), "gallery": "default"}
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: known.get(found[1], NOBODY), template_of(route))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One of a kind, and what the table says of it."""

    headers: Callable[[], Awaitable[Headers]]
    """Made anew for each call that may end it."""
    expected: Callable[[HTTPRouteHandler], Refusal | None]
    """How a route refuses it; None: it may call it."""


def of_key(
    permissions: frozenset[Permission], *, elsewhere: bool = False, limited: bool = False
) -> Callable[[HTTPRouteHandler], Refusal | None]:
    """What an API key may do with these permissions, in another workspace or in another gallery alone."""

    def expected(route: HTTPRouteHandler) -> Refusal | None:
        needed = needs(route)
        if names_workspace(route) and elsewhere:
            return ELSEWHERE
        if needed not in IN_WORKSPACE:
            return MISSING
        if needed not in permissions:
            return SCOPE
        if limited and route.handler_name == MAKES_A_GALLERY:
            return SCOPE
        return GALLERY if limited and "{gallery:" in template_of(route) else None

    return expected


def of_user(
    role: Role | None, *, administrator: bool = False, named: Refusal | None = None
) -> Callable[[HTTPRouteHandler], Refusal | None]:
    """What a user may do as this in the workspace; `named` is the answer wherever a header names it."""

    def expected(route: HTTPRouteHandler) -> Refusal | None:
        needed = needs(route)
        if named is not None:
            return named
        if names_workspace(route) and role is None:
            return ELSEWHERE
        if needed is Permission.ACCOUNT or (needed is Permission.ADMINISTER and administrator):
            return None
        if needed is Permission.ADMINISTER:
            return ADMINISTRATOR
        if role is None:
            return UNCLEAR
        return None if needed in OF_ROLE[role] else ROLE

    return expected


KINDS: Final = (
    "nothing",
    "an empty key",
    "garbage as a key",
    "a forged key",
    "an expired key",
    "a revoked key",
    "garbage as a token",
    "a token of no algorithm",
    "a token by another key",
    "an expired token",
    "a token of a session that ended",
    "a token of a deleted user",
    "a key and a token at once",
    "a key of another workspace",
    "a member of another workspace",
    "a member of another workspace who names this one",
    "a user without a workspace",
    "an administrator without a workspace",
    "an administrator who is a viewer",
    "a key for another gallery",
    "a key for everything",
    *(f"a key for {scope.value}" for scope in Scope),
    *(f"a member as {role.value}" for role in Role),
)


@pytest.fixture(scope="module")
async def service(
    postgres_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InProcess]:
    """One for all: nothing that is called here changes what another call is answered."""
    folder = tmp_path_factory.mktemp("matrix")
    async with (
        another_database(postgres_url, migrated_url) as url,
        in_process(with_rates(settings_for(url, folder, folder)), WithJobs(), work=False) as running,
    ):
        yield running


async def key(
    service: InProcess,
    scopes: frozenset[Scope] = frozenset(Scope),
    *,
    workspace: WorkspaceId | None = None,
    galleries: frozenset[GalleryId] | None = None,
    expires_at: datetime | None = None,
) -> dict[str, str]:
    """Return the header of a new key."""
    async with service.container(scope=Lifetime.REQUEST) as unit:
        issued = await (await unit.get(IssueKey))(
            workspace=workspace or service.workspace,
            name="x",
            scopes=scopes,
            galleries=galleries,
            expires_at=expires_at,
        )
        await (await unit.get(Transaction)).commit()
    return {"X-API-Key": issued.secret}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def user(
    service: InProcess, role: Role | None = None, *, workspace: WorkspaceId | None = None, administrator: bool = False
) -> dict[str, str]:
    """Return the header of a new user's access token."""
    roles = {} if role is None else {workspace or service.workspace: role}
    return (await sign_in(service.container, roles=roles, administrator=administrator)).headers


async def forged_tokens(service: InProcess) -> tuple[str, str]:
    """Return a good owner's token without an algorithm, and one that somebody else signed."""
    good = (await sign_in(service.container, roles={service.workspace: Role.OWNER})).token
    header, claims = jwt.get_unverified_header(good), jwt.decode(good, options={"verify_signature": False})
    unsigned = [json.dumps(part).encode() for part in ({**header, "alg": "none"}, claims)]
    none = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in unsigned) + "."
    return none, jwt.encode(claims, "k" * 32, algorithm="HS256", headers=header)


async def no_good(service: InProcess, kind: str) -> tuple[Headers, Refusal] | None:  # noqa: C901, PLR0911, PLR0912 - a case a kind
    """Make a credential that opens nothing, and say how it is refused; None for another kind."""
    now = datetime.now(UTC)
    match kind:
        case "nothing":
            return {}, MISSING
        case "an empty key":
            return {"X-API-Key": ""}, MISSING
        case "garbage as a key":
            return {"X-API-Key": "'; DROP TABLE api_keys; --"}, INVALID
        case "a forged key":
            return {"X-API-Key": "fp_" + "A" * 43}, INVALID
        case "an expired key":
            return await key(service, expires_at=now - timedelta(seconds=1)), INVALID
        case "a revoked key":
            revoked = await key(service)
            async with caller(service, revoked) as client:
                (mine,) = [
                    one["id"]
                    for one in (await client.get("/api-keys", params={"limit": 100})).json()["items"]
                    if revoked["X-API-Key"].startswith(one["prefix"])
                ]
                assert (await client.delete(f"/api-keys/{mine}")).status_code == 204
            return revoked, INVALID
        case "garbage as a token":
            return bearer("a.b.c"), INVALID
        case "a token of no algorithm":
            return bearer((await forged_tokens(service))[0]), INVALID
        case "a token by another key":
            return bearer((await forged_tokens(service))[1]), INVALID
        case "an expired token":
            one = await sign_in(service.container, roles={service.workspace: Role.OWNER})
            old = await signed(service.container, one.user, one.session, issued=now - timedelta(hours=1))
            return bearer(old), INVALID
        case "a token of a session that ended":
            one = await sign_in(service.container, roles={service.workspace: Role.OWNER})
            async with service.container(scope=Lifetime.REQUEST) as unit:
                assert await (await unit.get(SessionRepository)).end(one.user, now=now) == [one.session]
                await (await unit.get(Transaction)).commit()
            return one.headers, INVALID
        case "a token of a deleted user":
            one = await sign_in(service.container, roles={service.workspace: Role.OWNER})
            url = (await service.container.get(Settings)).database.url or ""
            await execute(url, f"UPDATE users SET deleted_at = now() WHERE id = '{one.user}'")  # noqa: S608 - an id of ours
            return one.headers, INVALID
        case "a key and a token at once":
            return {**await key(service), **await user(service, Role.OWNER)}, INVALID
        case _:
            return None


async def credential(service: InProcess, kind: str) -> Credential:  # noqa: C901, PLR0911 - a case a kind
    """Make one of a kind, and say what the domain's table says of it."""

    def fixed(headers: Headers, expected: Callable[[HTTPRouteHandler], Refusal | None]) -> Credential:
        async def same() -> Headers:
            return headers

        return Credential(headers=same, expected=expected)

    bad = await no_good(service, kind)
    if bad is not None:
        headers, refusal = bad
        return fixed(headers, lambda _: refusal)
    match kind:
        case "a key of another workspace":
            foreign = await another_workspace(service.container)
            everything = permissions_of(frozenset(Scope))
            return fixed(await key(service, workspace=foreign), of_key(everything, elsewhere=True))
        case "a member of another workspace":
            foreign = await another_workspace(service.container)

            def expected(route: HTTPRouteHandler) -> Refusal | None:
                return ELSEWHERE if names_workspace(route) else of_user(Role.OWNER)(route)

            return Credential(headers=lambda: user(service, Role.OWNER, workspace=foreign), expected=expected)
        case "a member of another workspace who names this one":
            foreign = await another_workspace(service.container)

            async def naming() -> Headers:
                headers = await user(service, Role.OWNER, workspace=foreign)
                return {**headers, "X-Workspace-Id": str(service.workspace)}

            return Credential(headers=naming, expected=of_user(None, named=ELSEWHERE))
        case "a user without a workspace":
            return Credential(headers=lambda: user(service), expected=of_user(None))
        case "an administrator without a workspace":
            return Credential(
                headers=lambda: user(service, administrator=True), expected=of_user(None, administrator=True)
            )
        case "an administrator who is a viewer":
            return Credential(
                headers=lambda: user(service, Role.VIEWER, administrator=True),
                expected=of_user(Role.VIEWER, administrator=True),
            )
        case "a key for another gallery":
            made = await service.client.post("/galleries", json={"name": f"g{uuid4().hex}"})
            limits = frozenset({GalleryId(made.json()["id"])})
            permissions = permissions_of(frozenset(Scope), limited=True)
            return fixed(await key(service, galleries=limits), of_key(permissions, limited=True))
        case "a key for everything":
            return fixed(await key(service), of_key(permissions_of(frozenset(Scope))))
        case _:
            what = kind.rpartition(" ")[2]
            if kind.startswith("a key"):
                return fixed(await key(service, frozenset({Scope(what)})), of_key(OF_SCOPE[Scope(what)]))
            return Credential(headers=lambda: user(service, Role(what)), expected=of_user(Role(what)))


@pytest.mark.parametrize("kind", KINDS)
async def test_every_route_answers_every_credential_as_the_table_says(service: InProcess, kind: str) -> None:
    await sign_in(service.container, roles={service.workspace: Role.OWNER})  # whoever leaves is not the last one
    shown = await credential(service, kind)
    headers = await shown.headers()
    wrong = []
    async with caller(service, {}) as client:
        for route in API:
            # What is about one's own account may end it, or the session.
            ends = needs(route) is Permission.ACCOUNT and method_of(route) != "GET"
            answer = await client.request(
                method_of(route),
                path_of(route, service.workspace),
                headers=await shown.headers() if ends else headers,
                json=None if method_of(route) in {"GET", "DELETE"} else {},
            )
            code = answer.json().get("code") if "problem" in answer.headers.get("Content-Type", "") else None
            found = (answer.status_code, code)
            expected = None if needs(route) is Permission.OPEN else shown.expected(route)
            if expected is None:
                refused = found in {MISSING, INVALID, SCOPE, ROLE, ADMINISTRATOR, ELSEWHERE, UNCLEAR, GALLERY}
                right = not refused and answer.status_code < 500
            else:
                right = found == expected
            if not right:
                wrong.append((method_of(route), template_of(route), found, "expected", expected or "to be let in"))
    assert wrong == []


@pytest.mark.parametrize("route", API, ids=lambda route: f"{method_of(route)} {template_of(route)}")
def test_every_route_names_what_it_needs(route: HTTPRouteHandler) -> None:
    assert needs(route) in Permission


def test_the_table_and_the_routes_have_the_same_permissions() -> None:
    assert set(OF_ROLE) == set(Role)
    assert set(OF_SCOPE) == set(Scope)
    assert set(Permission) - {needs(route) for route in API} == NEEDED_BY_NO_ROUTE
    given = frozenset[Permission]().union(*OF_ROLE.values(), *OF_SCOPE.values())
    assert given == IN_WORKSPACE


async def test_no_other_route_is_there_than_those_that_were_tried(service: InProcess) -> None:
    pages = {"account_page", "account_style", "account_script"}
    documents = {"openapi_document", "_handler", "handle_schema_path_not_found", "render_oauth2_redirect"}
    assets = {"get_handler", "head_handler"}
    unguarded = {
        handler.handler_name
        for route in service.app.routes
        for handler in getattr(route, "route_handlers", None) or [route.route_handler]
        if guard not in handler.resolve_guards() and handler.handler_name != "options_handler"
    }
    assert unguarded == {"live", "ready", "receipts_key"} | pages | documents | assets
