"""What `/openapi.json` says is what the service does, and nothing that can be written into a request breaks it."""

import base64
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import httpx
import pytest
import requests
import schemathesis
from dishka import Scope as Lifetime
from hypothesis import HealthCheck, Phase, given, settings
from litestar.handlers import HTTPRouteHandler
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.generation.case import Case
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from adapters.face_embedder.memory import MemoryFaceEmbedder
from application.ports.transaction import Transaction
from application.use_cases.jobs.start_job import StartJob
from domain.job import JobWork
from domain.permission import OF_SCOPE, Permission, Role
from entrypoints.http.access import PERMISSION_OPTION
from entrypoints.http.app import API
from tests.conftest import another_database
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import SignedIn, another_workspace, caller, sign_in
from tests.e2e.with_jobs import WithJobs
from tests.security.house import with_rates
from tests.security.listening import listening

PICTURE: Final = MemoryFaceEmbedder.picture("ada")
ENCODED: Final = base64.b64encode(PICTURE).decode()
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES: Final = 4
"""Requests of an operation that keep to the document, and as many that do not."""

NO_SUCCESS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("migrate_gallery", "get_migration", "finish_migration"), "one model is served"),
    "change_password": "who is signed in here has no password",
    "delete_gallery": "it has people in it",
    "unmerge_people": "nobody was merged",
}
"""Operations that refuse a sensible call here, and why; what they answer is held against the document all the same."""

CREDENTIALS: Final = {"x-api-key", "authorization"}
NOBODY: Final = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"
PASSWORD: Final = "correct horse battery"
BY_KEYS: Final = frozenset[Permission]().union(*OF_SCOPE.values())


def generated(operation: APIOperation, mode: GenerationMode) -> list[Case]:
    """Return the same requests every time."""
    found: list[Case] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def gather(case: Case) -> None:
        found.append(case)

    gather()
    return found


@dataclass(frozen=True, slots=True)
class Documented:
    """A service that listens on a port, and what it says of itself."""

    service: InProcess
    url: str
    operations: Mapping[tuple[str, str], APIOperation]
    """By method and path."""


@pytest.fixture(scope="module")
async def documented(
    postgres_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Documented]:
    """A service over a database of its own, which limits nobody's rate."""
    folder = tmp_path_factory.mktemp("documented")
    async with another_database(postgres_url, migrated_url) as database:
        settings = with_rates(settings_for(database, folder, folder))
        async with (
            in_process(settings, WithJobs(), work=False) as service,
            listening(service.app, settings) as url,
            httpx.AsyncClient() as client,
        ):
            document = (await client.get(f"{url}/openapi.json")).json()
            schema = schemathesis.openapi.from_dict(document)
            operations = [one.ok() for one in schema.get_all_operations()]
            yield Documented(service, url, {(one.method.upper(), one.path): one for one in operations})


async def one_of_everything(service: InProcess) -> dict[str, str]:
    """Return what path parameters are called, and what there is of it."""
    client = service.client
    gallery = (await client.post("/galleries", json={"name": f"g{uuid4().hex}"})).json()["id"]
    enrolled = await client.post(f"/galleries/{gallery}/references", json={"image": ENCODED})
    key = await client.post("/api-keys", json={"name": "x", "scopes": ["read"]})
    other = await client.post(f"/galleries/{gallery}/people", json={})
    user = await sign_in(service.container, roles={service.workspace: Role.VIEWER})
    stranger = await sign_in(service.container)
    owner = await sign_in(service.container, roles={service.workspace: Role.OWNER})
    async with caller(service, owner.headers) as asking:
        invited = await asking.post(f"/workspaces/{service.workspace}/invitations", json={"role": "viewer"})
    async with service.container(scope=Lifetime.REQUEST) as unit:
        job = await (await unit.get(StartJob))(
            workspace=service.workspace, kind=JobWork.BULK_ENROLMENT, parameters={"gallery": gallery}
        )
        await (await unit.get(Transaction)).commit()
    return {
        "gallery": gallery,
        "person": enrolled.json()["person"]["id"],
        "reference": enrolled.json()["accepted"][0]["id"],
        "other": other.json()["id"],
        "key": key.json()["id"],
        "job": str(job.id),
        "workspace": str(service.workspace),
        "user": str(user.user),
        "stranger": str(stranger.user),
        "invitation": invited.json()["id"],
    }


def place_of(route: HTTPRouteHandler) -> tuple[str, str]:
    (path,) = route.paths
    return next(iter(route.http_methods)), "/api/v1" + re.sub(r":\w+}", "}", path)


async def token_for(service: InProcess, route: HTTPRouteHandler, root: SignedIn) -> Mapping[str, object] | None:
    """Return a body with a token that another call gave, for an operation that takes one."""
    name, email = route.handler_name, f"{uuid4().hex}@example.org"
    if name not in {"log_in", "refresh_tokens", "reset_password", "show_link", "accept_invitation"}:
        return None
    async with caller(service, root.headers) as client:
        if name == "accept_invitation":
            host = await sign_in(service.container)
            elsewhere = await another_workspace(service.container, host.user)
            invited = await client.post(
                f"/workspaces/{elsewhere}/invitations", json={"role": "viewer"}, headers=host.headers
            )
            return {"token": invited.json()["token"]}
        made = await client.post("/users", json={"email": email, "password": PASSWORD, "password_link": True})
        token = made.json()["link"]["token"]
        if name == "refresh_tokens":
            tokens = await client.post("/auth/login", json={"email": email, "password": PASSWORD})
            return {"refresh_token": tokens.json()["refresh_token"]}
    bodies: Mapping[str, Mapping[str, object]] = {
        "log_in": {"email": email, "password": PASSWORD},
        "reset_password": {"token": token, "password": PASSWORD},
    }
    return bodies.get(name, {"token": token})


async def sensible(
    service: InProcess, route: HTTPRouteHandler, there: Mapping[str, str], root: SignedIn
) -> Mapping[str, object]:
    """Return a body that the operation takes, where it needs one that is not to be found by chance."""
    claimed = {"image": ENCODED, "gallery": there["gallery"]}
    email = f"{uuid4().hex}@example.org"
    if (token := await token_for(service, route, root)) is not None:
        return token
    bodies: Mapping[str, Mapping[str, object]] = {
        "verify_face": {**claimed, "person_id": there["person"]},
        "verify_batch": {"items": [{**claimed, "person_id": there["person"]}, {**claimed, "person_id": NOBODY}]},
        "search_faces": claimed,
        "search_batch": {"items": [claimed, {**claimed, "gallery": "nowhere"}]},
        "compare_faces": {"image": ENCODED, "other_image": ENCODED},
        "detect_faces": {"image": ENCODED},
        "embed_faces": {"image": ENCODED},
        "enrol_references": {"image": ENCODED},
        "enrol_batch": {"items": [{"image": ENCODED}, {"image": ENCODED, "person_id": NOBODY}]},
        "merge_people": {"person_id": there["other"]},
        "create_api_key": {"name": "x", "scopes": ["read"], "galleries": [there["gallery"]]},
        "create_gallery": {"name": f"g{uuid4().hex}"},
        "create_workspace": {"name": f"w{uuid4().hex}"},
        "update_workspace": {"name": f"w{uuid4().hex}"},
        "add_member": {"user_id": there["stranger"], "role": "viewer"},
        "change_member": {"role": "operator"},
        "invite_member": {"role": "viewer"},
        "register": {"email": email, "password": PASSWORD},
        "create_user": {"email": email, "password_link": True},
        "create_users": {"items": [{"email": email}, {"email": email}]},
        "update_user": {"name": "Ada"},
    }
    return bodies.get(route.handler_name, {})


def parameters(route: HTTPRouteHandler) -> set[str]:
    return set(re.findall(r"\{(\w+)", place_of(route)[1]))


async def complaints(documented: Documented, route: HTTPRouteHandler) -> list[str]:
    """Call an operation in many ways, and return where its answers are not what the document says."""
    operation = documented.operations[place_of(route)]
    service = documented.service
    there = await one_of_everything(service)
    key = {"X-API-Key": str(service.client.headers["X-API-Key"])}
    root = await sign_in(service.container, roles={service.workspace: Role.OWNER}, administrator=True)
    there["session"] = str(root.session)
    credential = key if route.opt[PERMISSION_OPTION] in BY_KEYS else root.headers
    if route.handler_name == "watch_job":  # a stream that ends with its job
        assert (await service.client.post(f"/jobs/{there['job']}/cancel")).status_code == 200
    body = await sensible(service, route, there, root)
    plain = operation.Case(
        path_parameters={name: there[name] for name in parameters(route)},
        **({"body": body, "media_type": "application/json"} if operation.body else {}),
    )
    cases = [plain, *generated(operation, GenerationMode.POSITIVE), *generated(operation, GenerationMode.NEGATIVE)]
    found, statuses = [], []
    async with httpx.AsyncClient(timeout=60.0) as client:
        for number, case in enumerate(cases):
            if number % 2 == 0:  # what is there is asked for every second time
                case.path_parameters = {name: there[name] for name in case.path_parameters or {}}
            answer = await client.send(request_of(case, documented.url, credential))
            statuses.append(answer.status_code)
            try:
                case.validate_response(answer, checks=CHECKS)
            except FailureGroup as failures:
                found += [f"{one.title}: {one.message} {answer.text[:300]}" for one in failures.exceptions]
    if (200 <= statuses[0] < 300) is (route.handler_name in NO_SUCCESS):
        found.append(f"a sensible call was answered {statuses[0]}")
    return found


def request_of(case: Case, url: str, credential: Mapping[str, str]) -> httpx.Request:
    """Write a request as it goes out, with a credential that is good in place of a made-up one."""
    written = requests.Request(**case.as_transport_kwargs(base_url=url)).prepare()
    headers = {name: value for name, value in written.headers.items() if name.lower() not in CREDENTIALS}
    return httpx.Request(
        written.method or "", written.url or "", headers={**headers, **credential}, content=written.body
    )


@pytest.mark.parametrize("route", API, ids=lambda route: route.handler_name)
async def test_an_operation_keeps_to_the_document(documented: Documented, route: HTTPRouteHandler) -> None:
    found = await complaints(documented, route)
    assert found == []


async def test_a_bulk_enrolment_that_a_job_does_keeps_to_the_document(documented: Documented) -> None:
    service = documented.service
    operation = documented.operations["POST", "/api/v1/galleries/{gallery}/references/batch"]
    case = operation.Case(
        path_parameters={"gallery": "default"},
        headers={"Prefer": "respond-async"},
        body={"items": [{"image": ENCODED}]},
        media_type="application/json",
    )
    credential = {"X-API-Key": service.client.headers["X-API-Key"]}
    async with httpx.AsyncClient(timeout=60.0) as client:
        answer = await client.send(request_of(case, documented.url, credential))
    assert answer.status_code == 202
    case.validate_response(answer, checks=CHECKS)
