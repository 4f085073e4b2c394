from typing import Any

import msgspec
import pytest
from litestar import Request
from litestar.exceptions import HTTPException
from litestar.testing import RequestFactory
from structlog.testing import capture_logs

from application.ports import errors as ports
from domain import errors
from domain.enrolment import Rejection
from domain.errors import FacepassError, leaves
from entrypoints.http.problems import (
    MEDIA_TYPE,
    STATUS,
    Problem,
    on_any_error,
    on_core_error,
    on_http_error,
    problem_of,
)

OURS = [leaf for leaf in leaves() if leaf.__module__ in {errors.__name__, ports.__name__}]
"""Tests and third parties may have leaves of their own."""

SECRET = "/srv/data SELECT password"


def made(leaf: type[FacepassError], message: str = "what is wrong") -> FacepassError:
    """An error of this kind, with whatever it takes beside its message."""
    if issubclass(leaf, errors.InvalidValue):
        return leaf(message, field="policy.target_fmr")
    if issubclass(leaf, errors.NothingAccepted):
        return leaf(message, rejected=[Rejection(index=1, filename="a.jpg", code="too_dark", detail="it is dark")])
    if issubclass(leaf, ports.PortUnavailable | ports.PortBusy | ports.PortRejected):
        return leaf("vector_index", message)
    if issubclass(leaf, errors.Exhausted):
        return leaf(message, retry_after=2.5)
    return leaf(message)


@pytest.fixture
def request_() -> Request[Any, Any, Any]:
    request = RequestFactory().get("/api/v1/galleries")
    request.scope["facepass_request_id"] = "abc"  # type: ignore[typeddict-unknown-key]  # ours beside Litestar's
    return request


each_leaf = pytest.mark.parametrize("leaf", OURS, ids=lambda leaf: leaf.__name__)


def test_the_table_has_every_leaf_and_nothing_else() -> None:
    assert set(STATUS) == set(OURS)


@each_leaf
def test_every_error_becomes_a_whole_problem(leaf: type[FacepassError]) -> None:
    problem = msgspec.to_builtins(problem_of(made(leaf), instance="/x", request_id="abc"))
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= set(problem)
    assert (problem["code"], problem["status"]) == (leaf.code, STATUS[leaf])
    assert problem["type"] == f"urn:facepass:problem:{leaf.code}"
    assert all(problem[name] for name in ("title", "detail"))
    assert msgspec.convert(problem, Problem) == problem_of(made(leaf), instance="/x", request_id="abc")


@each_leaf
def test_a_kind_of_error_has_a_status_that_means_it(leaf: type[FacepassError]) -> None:
    meant = {
        errors.InvalidRequest: {409, 413, 415, 422},
        errors.NotFound: {404},
        errors.Conflict: {409, 412},
        errors.Refused: {401, 403},
        errors.Exhausted: {429},
        errors.PackError: {404, 409, 503},
        errors.CannotOpen: {500},
        errors.LedgerUnreadable: {503},
        errors.PortError: {503},
    }
    (allowed,) = [statuses for kind, statuses in meant.items() if issubclass(leaf, kind)]
    assert STATUS[leaf] in allowed


@each_leaf
def test_what_is_ours_to_mend_tells_clients_nothing(leaf: type[FacepassError]) -> None:
    problem = problem_of(made(leaf, SECRET))
    assert (SECRET in problem.detail) is (STATUS[leaf] != 500)


@each_leaf
def test_what_an_answer_hides_stands_in_the_log(leaf: type[FacepassError]) -> None:
    with capture_logs() as lines:
        problem_of(made(leaf, SECRET))
    assert [str(line["exc_info"]) for line in lines] == ([SECRET] if STATUS[leaf] == 500 else [])


def test_a_wrong_field_is_named() -> None:
    (field,) = problem_of(made(errors.InvalidValue)).errors
    assert (field.field, field.code, field.message) == ("policy.target_fmr", "invalid_value", "what is wrong")


def test_refused_images_are_listed() -> None:
    (one,) = problem_of(made(errors.NothingAccepted)).rejected
    assert (one.index, one.filename, one.code, one.detail) == (1, "a.jpg", "too_dark", "it is dark")


@each_leaf
def test_whoever_may_come_again_is_told_when(leaf: type[FacepassError], request_: Request[Any, Any, Any]) -> None:
    answer = on_core_error(request_, made(leaf))
    assert answer.media_type == MEDIA_TYPE
    assert ("Retry-After" in answer.headers) is (STATUS[leaf] in {429, 503})
    assert ("WWW-Authenticate" in answer.headers) is (STATUS[leaf] == 401)
    assert answer.content.request_id == "abc"


@pytest.mark.parametrize(("wait", "said"), [(0.0, "1"), (0.2, "1"), (2.5, "3"), (60.0, "60")])
def test_a_busy_port_says_in_whole_seconds_when_to_come_again(
    request_: Request[Any, Any, Any], wait: float, said: str
) -> None:
    answer = on_core_error(request_, ports.PortBusy("face_embedder", "it is full", retry_after=wait))
    assert answer.headers["Retry-After"] == said


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 405, 408, 409, 413, 415, 418, 422, 429, 500, 501, 502, 503, 504]
)
def test_whatever_the_framework_finds_is_a_problem_too(request_: Request[Any, Any, Any], status: int) -> None:
    problem = on_http_error(request_, HTTPException(status_code=status, detail="x")).content
    assert problem.status == status
    assert problem.code
    assert problem.type == f"urn:facepass:problem:{problem.code}"
    assert problem.instance == "/api/v1/galleries"
    assert problem.request_id == "abc"


def test_a_parameter_that_the_framework_refuses_is_named(request_: Request[Any, Any, Any]) -> None:
    wrong = HTTPException(status_code=400, detail="x", extra=[{"key": "limit", "message": "Expected `int`"}])
    problem = on_http_error(request_, wrong).content
    assert (problem.status, problem.code) == (422, "invalid_value")
    assert [(one.field, one.message) for one in problem.errors] == [("limit", "Expected `int`")]


def test_a_mistake_of_ours_shows_nothing_but_the_request(request_: Request[Any, Any, Any]) -> None:
    problem = on_any_error(request_, RuntimeError(SECRET)).content
    assert SECRET not in msgspec.json.encode(problem).decode()
    assert (problem.status, problem.code, problem.request_id) == (500, "internal_error", "abc")
