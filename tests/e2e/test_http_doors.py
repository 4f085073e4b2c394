import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from domain.permission import Permission, Scope
from entrypoints.http.access import PERMISSION_OPTION
from entrypoints.http.app import API
from tests.e2e.conftest import Keys
from tests.e2e.running_service import RunningService

WITHOUT_BODY = {"cancel_job", "erase_person", "log_out", "restore_user", "make_password_link"}
NOBODY = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"


def method_of(route: HTTPRouteHandler) -> str:
    return next(iter(route.http_methods))


def parameters(route: HTTPRouteHandler) -> list[str]:
    return re.findall(r"\{(\w+):", next(iter(route.paths)))


def path_of(route: HTTPRouteHandler, **ids: str) -> str:
    """The route's path with ids in the place of parameters; those of nobody where none are given."""
    (template,) = route.paths
    return re.sub(r"\{(\w+):\w+\}", lambda found: ids.get(found[1], NOBODY), template)


def named(route: HTTPRouteHandler) -> str:
    return f"{method_of(route)} {next(iter(route.paths))}"


def needs(route: HTTPRouteHandler) -> Permission:
    return Permission(route.opt[PERMISSION_OPTION])


def grant(service: RunningService, keys: Keys, scopes: list[Scope]) -> None:
    """Make the spare key good again, for these scopes."""
    service.rows(
        "UPDATE api_keys SET scopes = $1, revoked_at = NULL, expires_at = NULL WHERE prefix = $2",
        [scope.value for scope in scopes],
        keys.spare[:11],
    )


every_route = pytest.mark.parametrize("route", API, ids=named)
routes_with_ids = pytest.mark.parametrize(
    "route", [route for route in API if "{" in next(iter(route.paths))], ids=named
)


def is_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


@every_route
def test_every_route_names_its_permission(route: HTTPRouteHandler) -> None:
    assert needs(route) in Permission


class TestKeys:
    @pytest.mark.parametrize("key", [b"", b"x", "fp_ä€".encode(), b"\xff\xfe", b"x" * 9000, b"a\tb", b"'; --"])
    def test_no_garbage_opens(self, service: RunningService, key: bytes) -> None:
        with service.client(None) as nobody:
            answer = nobody.get("/galleries", headers=[(b"X-API-Key", key)])
        is_problem(answer, 401, "credential_invalid" if key else "credential_missing")

    @pytest.mark.parametrize("spoilt", ["revoked_at", "expires_at"])
    def test_a_key_that_is_no_longer_good_is_refused_within_a_second(
        self, service: RunningService, keys: Keys, spoilt: str
    ) -> None:
        grant(service, keys, list(Scope))
        with service.client(keys.spare) as client:
            while client.get("/galleries").status_code != 200:
                pass
            (since,) = service.rows(
                f"UPDATE api_keys SET {spoilt} = now() WHERE prefix = $1 RETURNING now() AS at",  # noqa: S608 - a column's name from this test's own list
                keys.spare[:11],
            )
            while (answer := client.get("/galleries")).status_code == 200:
                pass
        is_problem(answer, 401, "credential_invalid")
        (until,) = service.rows("SELECT now() AS at")
        # A second by its word; the rest is for a machine with other things to do.
        assert until["at"] - since["at"] < timedelta(seconds=10)
        grant(service, keys, list(Scope))

    def test_a_key_in_the_address_opens_nothing_and_is_not_logged(self, service: RunningService, keys: Keys) -> None:
        with service.client(None) as nobody:
            is_problem(nobody.get("/galleries", params={"X-API-Key": keys.mine}), 401, "credential_missing")
        assert keys.mine.encode() not in service.logs.read_bytes()


@pytest.fixture(scope="module")
def mine(client: httpx.Client, astronaut: bytes) -> dict[str, str]:
    """Ids of a gallery of mine, of two people in it, and of a reference of the first."""
    gallery = client.post("/galleries", json={"name": f"g{uuid4().hex}"}).json()
    made = client.post(f"/galleries/{gallery['id']}/references", files={"image": astronaut}).json()
    other = client.post(f"/galleries/{gallery['id']}/people", json={}).json()
    return {
        "gallery": gallery["id"],
        "person": made["person"]["id"],
        "reference": made["accepted"][0]["id"],
        "other": other["id"],
    }


class TestWorkspaces:
    @pytest.mark.parametrize("claim", ["person_id", "reference_id"])
    def test_anothers_faces_cannot_be_asked_about(
        self, stranger: httpx.Client, mine: dict[str, str], astronaut: bytes, claim: str
    ) -> None:
        claimed = mine[claim.removesuffix("_id")]
        for named_gallery in (mine["gallery"], "default"):
            fields = {"gallery": named_gallery, claim: claimed}
            assert stranger.post("/verify", files={"image": astronaut}, data=fields).status_code == 404
        elsewhere = stranger.post("/search", files={"image": astronaut}, data={"gallery": mine["gallery"]})
        is_problem(elsewhere, 404, "gallery_not_found")
        here = stranger.post("/search", files={"image": astronaut}, data={"threshold": "-1"})
        assert here.json()["faces"][0]["matches"] == []
        named_people = {"threshold": "-1", "people": mine["person"]}
        assert (
            stranger.post("/search", files={"image": astronaut}, data=named_people).json()["faces"][0]["matches"] == []
        )

    def test_nobody_elses_things_are_listed(self, stranger: httpx.Client, mine: dict[str, str]) -> None:
        listed = stranger.get("/galleries", params={"limit": 100}).json()["items"]
        assert mine["gallery"] not in [one["id"] for one in listed]

    def test_a_person_cannot_be_enrolled_into_across(
        self, stranger: httpx.Client, mine: dict[str, str], astronaut: bytes
    ) -> None:
        answer = stranger.post(
            "/galleries/default/references", files={"image": astronaut}, data={"person_id": mine["person"]}
        )
        is_problem(answer, 404, "person_not_found")

    def test_a_person_cannot_be_merged_across(self, stranger: httpx.Client, mine: dict[str, str]) -> None:
        own = stranger.post("/galleries/default/people", json={}).json()["id"]
        answer = stranger.post(f"/galleries/default/people/{own}/merge", json={"person_id": mine["person"]})
        is_problem(answer, 404, "person_not_found")


@pytest.fixture(scope="module")
def document(service: RunningService) -> dict[str, Any]:
    """What `/openapi.json` says."""
    answer = httpx.get(f"{service.url}/openapi.json")
    assert answer.status_code == 200
    read: dict[str, Any] = answer.json()
    return read


class TestPages:
    @every_route
    def test_the_document_has_every_route(self, document: dict[str, Any], route: HTTPRouteHandler) -> None:
        path = "/api/v1" + re.sub(r":\w+\}", "}", next(iter(route.paths)))
        operation = document["paths"][path][method_of(route).lower()]
        assert operation["description"]
        if method_of(route) in {"POST", "PATCH"} and route.handler_name not in WITHOUT_BODY:
            assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}

    def test_the_document_says_how_to_show_a_key(self, document: dict[str, Any]) -> None:
        schemes = document["components"]["securitySchemes"]
        assert (schemes["api_key"]["in"], schemes["api_key"]["name"]) == ("header", "X-API-Key")
        assert (schemes["access_token"]["type"], schemes["access_token"]["scheme"]) == ("http", "bearer")

    def test_an_image_is_a_file_in_forms_and_base64_in_json(self, document: dict[str, Any]) -> None:
        content = document["paths"]["/api/v1/search"]["post"]["requestBody"]["content"]
        formed, encoded = (
            str(content[kind]["schema"]["properties"]["image"]) for kind in ("multipart/form-data", "application/json")
        )
        assert "'binary'" in formed
        assert "'base64'" in encoded

    def test_the_pages_load_with_everything_they_need_from_here(self, service: RunningService) -> None:
        page = httpx.get(f"{service.url}/docs", follow_redirects=True)
        assert page.status_code == 200
        wanted = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
        assert len(wanted) >= 3
        assert [one for one in wanted if not one.startswith("/")] == []
        assert [httpx.get(service.url + one).status_code for one in wanted] == [200] * len(wanted)

    @pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
    def test_health_needs_no_key(self, service: RunningService, path: str) -> None:
        answer = httpx.get(service.url + path)
        assert answer.status_code == 200
        if path == "/health/ready":
            assert answer.json()["status"] == "ready"
            assert {"database", "face_embedder", "vector_index"} <= set(answer.json()["checks"])
