"""Errors as the wire shows them: RFC 9457 problem documents with one stable code each."""

import http
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from application.ports import errors as ports
from domain import errors
from domain.enrolment import Rejection
from entrypoints.http.access import call_of, note_refusal

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[type[errors.FacepassError], int] = {
    errors.InvalidValue: 422,
    errors.InvalidCursor: 422,
    errors.IdempotencyKeyReused: 409,
    errors.TooManyItems: 422,
    errors.PasswordRefused: 422,
    errors.WorkspaceUnclear: 422,
    errors.LinkInvalid: 422,
    errors.NotAnImage: 422,
    errors.ImageTruncated: 422,
    errors.ImageFormatUnsupported: 415,
    errors.ImageTooLarge: 413,
    errors.TooManyPixels: 413,
    errors.FaceNotFound: 422,
    errors.MultipleFaces: 422,
    errors.FaceTooSmall: 422,
    errors.FaceCutOff: 422,
    errors.LowSharpness: 422,
    errors.LowContrast: 422,
    errors.TooDark: 422,
    errors.TooBright: 422,
    errors.ExtremePose: 422,
    errors.LowConfidence: 422,
    errors.NothingAccepted: 422,
    errors.ReceiptInvalid: 422,
    errors.GalleryNotFound: 404,
    errors.PersonNotFound: 404,
    errors.ReferenceNotFound: 404,
    errors.ImageNotKept: 404,
    errors.MigrationNotFound: 404,
    errors.JobNotFound: 404,
    errors.WorkspaceNotFound: 404,
    errors.UserNotFound: 404,
    errors.MemberNotFound: 404,
    errors.InvitationNotFound: 404,
    errors.SessionNotFound: 404,
    errors.ApiKeyNotFound: 404,
    errors.GalleryNameTaken: 409,
    errors.ExternalIdTaken: 409,
    errors.GalleryKept: 409,
    errors.PersonMerged: 409,
    errors.SpaceMismatch: 409,
    errors.SpaceNotServed: 409,
    errors.SpaceInUse: 409,
    errors.MigrationRunning: 409,
    errors.MigrationUnfinished: 409,
    errors.ReferencesLeftBehind: 409,
    errors.ThresholdFixed: 409,
    errors.VersionMismatch: 412,
    errors.JobEnded: 409,
    errors.EmailTaken: 409,
    errors.WorkspaceNameTaken: 409,
    errors.MemberExists: 409,
    errors.LastOwner: 409,
    errors.LastAdministrator: 409,
    errors.ApiKeyRevoked: 409,
    errors.CredentialMissing: 401,
    errors.CredentialInvalid: 401,
    errors.LoginFailed: 401,
    errors.ScopeMissing: 403,
    errors.RoleMissing: 403,
    errors.AdministratorOnly: 403,
    errors.RegistrationClosed: 403,
    errors.RateLimited: 429,
    errors.TooManyAttempts: 429,
    errors.UnknownPack: 404,
    errors.PackMissing: 503,
    errors.PackCorrupt: 503,
    errors.PackUnavailable: 503,
    errors.PackNotCommercial: 409,
    errors.PackUncalibrated: 409,
    errors.CannotOpen: 500,
    errors.LedgerUnreadable: 503,
    ports.PortUnavailable: 503,
    ports.PortBusy: 503,
    ports.PortRejected: 503,
}
"""Every leaf of the error tree; a test says that none is missing."""

_RETRY_AFTER_UNAVAILABLE = 5
_HIDDEN = 500

# What the framework finds wrong before a use case is reached.
_FRAMEWORK_CODES = {
    400: "invalid_request",
    401: "credential_missing",
    403: "scope_missing",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_value",
    429: "rate_limited",
    503: "dependency_unavailable",
}

log = structlog.get_logger("facepass.http")


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one field."""

    field: str
    """As the client wrote it: `policy.target_fmr`."""
    code: str
    message: str


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """An image that became no reference."""

    index: int
    filename: str | None
    code: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details, with a stable `code` to build on."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    request_id: str | None = None
    errors: list[FieldProblem] = msgspec.field(default_factory=list)
    """The fields that are wrong, where fields are."""
    rejected: list[Rejected] = msgspec.field(default_factory=list)
    """The images that were refused, where several were sent."""


def problem_of(error: errors.FacepassError, *, instance: str | None = None, request_id: str | None = None) -> Problem:
    """Render an error of the core. What the answer hides is written to the log."""
    status = STATUS[type(error)]
    if status == _HIDDEN:
        log.error("internal_error", code=error.code, exc_info=error)
    return Problem(
        type=f"urn:facepass:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=status,
        detail="an internal error; the log has it under the request id" if status == _HIDDEN else error.message,
        code=error.code,
        instance=instance,
        request_id=request_id,
        errors=_fields_of(error),
        rejected=rejected_of(error.rejected) if isinstance(error, errors.NothingAccepted) else [],
    )


def rejected_of(rejections: tuple[object, ...]) -> list[Rejected]:
    """Render refused images."""
    return [
        Rejected(index=one.index, filename=one.filename, code=one.code, detail=one.detail)
        for one in rejections
        if isinstance(one, Rejection)
    ]


def on_core_error(request: Request[Any, Any, Any], error: errors.FacepassError) -> Response[Problem]:
    """Answer with an error of the core."""
    problem = problem_of(error, instance=request.url.path, request_id=request_id_of(request))
    headers = {}
    if problem.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        wait = error.retry_after if isinstance(error, ports.PortBusy) else _RETRY_AFTER_UNAVAILABLE
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
        log.warning("unavailable", code=error.code, reason=error.message)
    if isinstance(error, errors.Exhausted):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, errors.Refused | errors.Exhausted | errors.LinkInvalid):  # a link may have been guessed
        note_refusal(request, error)
        log.info("refused", code=error.code, call=call_of(request))
    if problem.status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'ApiKey realm="facepass", Bearer realm="facepass"'
    return _answer(problem, headers)


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Answer with what the framework found wrong: a path, a method, a body that is too large."""
    status = error.status_code
    code = _FRAMEWORK_CODES.get(status, "invalid_request" if status < _HIDDEN else "internal_error")
    found = [
        FieldProblem(field=str(one.get("key", "")), code="invalid_value", message=str(one.get("message", "")))
        for one in (error.extra if isinstance(error.extra, list) else [])
        if isinstance(one, dict)
    ]
    if status == http.HTTPStatus.BAD_REQUEST and found:
        status, code = 422, "invalid_value"
    return _answer(
        Problem(
            type=f"urn:facepass:problem:{code}",
            title=code.replace("_", " ").capitalize(),
            status=status,
            detail=_detail(status, error, found),
            code=code,
            instance=request.url.path,
            request_id=request_id_of(request),
            errors=found,
        ),
        {name: value for name, value in (error.headers or {}).items() if name.lower() in {"allow", "retry-after"}},
    )


def on_any_error(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer with nothing but the request id: what went wrong stands in the log."""
    log.error("internal_error", exc_info=error)
    return _answer(
        Problem(
            type="urn:facepass:problem:internal_error",
            title="Internal error",
            status=500,
            detail="an internal error; the log has it under the request id",
            code="internal_error",
            instance=request.url.path,
            request_id=request_id_of(request),
        ),
        {},
    )


async def refuse(  # noqa: PLR0917 - the first three are ASGI's own, in its order
    scope: Scope, receive: Receive, send: Send, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> None:
    """Answer with a problem before the framework is reached."""
    code = _FRAMEWORK_CODES[status]
    request: Request[Any, Any, Any] = Request(scope, receive, send)
    problem = Problem(
        type=f"urn:facepass:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        instance=scope["path"],
        request_id=request_id_of(request),
    )
    answer = ASGIResponse(
        body=msgspec.json.encode(problem), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )
    await answer(scope, receive, send)


def request_id_of(request: Request[Any, Any, Any]) -> str | None:
    """Return the request's id, as the request-id middleware set it."""
    value = request.scope.get("facepass_request_id")
    return value if isinstance(value, str) else None


def _detail(status: int, error: HTTPException, found: list[FieldProblem]) -> str:
    if status == http.HTTPStatus.NOT_FOUND:
        return "there is nothing at this path"
    if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        return "this path does not take that method"
    if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "the body is larger than this service takes; send many or large images as multipart/form-data"
    if found:
        return f"{found[0].field}: {found[0].message}"
    return str(error.detail)


def _fields_of(error: errors.FacepassError) -> list[FieldProblem]:
    if isinstance(error, errors.InvalidValue | errors.PasswordRefused):
        return [FieldProblem(field=error.field, code=error.code, message=error.message)]
    return []


def _answer(problem: Problem, headers: dict[str, str]) -> Response[Problem]:
    return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)
