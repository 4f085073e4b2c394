"""Who is calling, and whether they may."""

import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import suppress
from typing import Any, Final, TypeVar
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from application.ports.access_tokens import AccessTokens
from application.ports.audit import AuditBatch
from application.ports.clock import Clock
from application.ports.record import Record
from application.use_cases.audit.origin import set_origin
from application.use_cases.erasure.ledger_gate import LedgerGate
from application.use_cases.keys.authenticate import Authenticate
from application.use_cases.keys.authenticate_user import AuthenticateUser
from domain.audit import (
    INSTANCE,
    ActorKind,
    AuditAction,
    AuditEvent,
    Origin,
    network_of,
    untold_request_id,
)
from domain.credential import Principal
from domain.errors import (
    CredentialInvalid,
    CredentialMissing,
    FacepassError,
    GalleryNotFound,
    InvalidValue,
    LoginFailed,
    PortError,
    ScopeMissing,
    WorkspaceNotFound,
    WorkspaceUnclear,
)
from domain.gallery import GalleryId
from domain.permission import Permission
from domain.user import SessionId, UserId
from domain.workspace import WorkspaceId
from entrypoints.http.names import gallery_named
from entrypoints.http.rate_limits import RateLimits
from entrypoints.http.request_context import REQUEST_ID

T = TypeVar("T")

KEY_HEADER = "x-api-key"
WORKSPACE_HEADER = "X-Workspace-Id"
WORKSPACE_PARAMETER = "workspace"
"""In a path it says which workspace is meant, whatever the header says."""

GALLERY_PARAMETER = "gallery"

PERMISSION_OPTION = "needs"
"""Every route names the permission it needs under this option; a test says that none is without."""

AGAIN_SECONDS: Final = 0.5
"""How long a call goes on, while its body comes or its answer goes, before its caller is recognised again."""

_BEARER = "bearer"
_PRINCIPAL = "facepass_principal"
_AUDIT = "facepass_audit"
_CALL = "facepass_call"


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse calls without a good credential (401), too many (429), and those that may not do this (403).

    What is open to everybody looks at no credential, so that one which has expired keeps nobody from logging in.
    """
    if connection.scope.get("method") == "OPTIONS":
        return  # the framework's own answer: which methods a path takes, and nothing else
    needed = Permission(handler.opt[PERMISSION_OPTION])
    _set_origin(connection, None)
    await _prepare_refusal(connection, handler)
    limits: RateLimits = connection.app.state.rate_limits
    if needed is Permission.OPEN:
        await limits.open_call(connection)
        return
    credential = connection.headers.get(KEY_HEADER) or _bearer_token(connection)
    principal, elsewhere = await limits.counted(
        connection, credential, lambda: _recognised(connection), is_ours=lambda: _is_ours(connection)
    )
    _set_origin(connection, principal)
    if elsewhere is not None:
        if isinstance(elsewhere, WorkspaceNotFound):
            # Written down who it was that named one which is not theirs.
            note_refusal(connection, elsewhere, principal)
        raise elsewhere
    _kept(connection)[_PRINCIPAL] = principal
    principal.require(needed)
    if principal.galleries is not None and GALLERY_PARAMETER in connection.path_params:
        # Routes ask themselves, to have the id; here for the one that would forget to, and before it reads a body.
        await gallery_of(connection, connection.path_params[GALLERY_PARAMETER])


async def _recognised(connection: ASGIConnection[Any, Any, Any, Any]) -> tuple[Principal, FacepassError | None]:
    """Return whose call this is, in the workspace that it is about; and what stands against it where that is none.

    Raises:
        CredentialMissing: there is none.
        CredentialInvalid: it is not good.
    """
    secret, token = connection.headers.get(KEY_HEADER), _bearer_token(connection)
    if secret and token:
        raise CredentialInvalid("send an access token or an API key, not both")
    if not secret and not token:
        raise CredentialMissing(
            "this needs an access token (Authorization: Bearer ...) or an API key (X-API-Key: ...);"
            " `facepass bootstrap` makes a key"
        )
    container = connection.app.state.dishka_container
    await (await container.get(LedgerGate)).passed()
    elsewhere: FacepassError | None = None
    meant = None
    try:
        meant = _workspace_meant(connection)
    except InvalidValue as error:
        elsewhere = error
    if token:
        recognise: AuthenticateUser = await container.get(AuthenticateUser)
        try:
            return await recognise(token, workspace=meant), elsewhere
        except WorkspaceNotFound as error:
            return await recognise(token, workspace=None), error
    authenticate: Authenticate = await container.get(Authenticate)
    principal = await authenticate(secret or "")
    if meant not in {None, principal.workspace}:
        elsewhere = WorkspaceNotFound("no such workspace, or not the one that this API key is for")
    return principal, elsewhere


async def _is_ours(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Tell whether an access token came that was signed here and has not expired; nobody is asked for it."""
    token = _bearer_token(connection)
    if not token:
        return False
    container = connection.app.state.dishka_container
    tokens: AccessTokens = await container.get(AccessTokens)
    clock: Clock = await container.get(Clock)
    return tokens.is_ours(token, now=clock.now())


async def require_still(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raise what stands against a call that goes on: its credential may be good no longer, or its role another."""
    needed = Permission(connection.route_handler.opt[PERMISSION_OPTION])
    if needed is Permission.OPEN:
        return
    principal, elsewhere = await _recognised(connection)
    if elsewhere is not None:
        raise elsewhere
    _kept(connection)[_PRINCIPAL] = principal
    principal.require(needed)


async def while_allowed(connection: ASGIConnection[Any, Any, Any, Any], pieces: AsyncIterator[T]) -> AsyncIterator[T]:
    """Give the pieces of a long answer for as long as whoever asked may have them; then break it off."""
    looked = time.monotonic()
    async for piece in pieces:
        if time.monotonic() - looked > AGAIN_SECONDS:
            await require_still(connection)
            looked = time.monotonic()
        yield piece


def _bearer_token(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Return what stands behind `Bearer`; other schemes are a proxy's affair."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == _BEARER else None


def _workspace_meant(connection: ASGIConnection[Any, Any, Any, Any]) -> WorkspaceId | None:
    """Return the workspace that the path names, else the header; None where neither does."""
    named = connection.path_params.get(WORKSPACE_PARAMETER) or connection.headers.get(WORKSPACE_HEADER)
    if named is None or isinstance(named, UUID):
        return None if named is None else WorkspaceId(named)
    try:
        return WorkspaceId(UUID(named))
    except ValueError as error:
        raise InvalidValue(f"{WORKSPACE_HEADER} holds a workspace's id", field=WORKSPACE_HEADER) from error


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Return whose call this is, once the guard let it in."""
    principal = _kept(connection).get(_PRINCIPAL)
    if not isinstance(principal, Principal):
        raise CredentialMissing("no credential came with the call")
    return principal


def signed_in(connection: ASGIConnection[Any, Any, Any, Any]) -> tuple[UserId, SessionId]:
    """Return which user's call this is, and from which of their sessions. Raises `CredentialMissing` for a key's."""
    user, session = user_of(connection), principal_of(connection).session
    if session is None:
        raise CredentialMissing("this is for users who are signed in, with an access token")
    return user, session


def workspace_of(connection: ASGIConnection[Any, Any, Any, Any]) -> WorkspaceId:
    """Return the workspace that a call is about, once the guard let it in."""
    workspace = principal_of(connection).workspace
    if workspace is None:
        raise WorkspaceUnclear("name the workspace in the header X-Workspace-Id")
    return workspace


def user_of(connection: ASGIConnection[Any, Any, Any, Any]) -> UserId:
    """Return the user whose call this is. Raises `CredentialMissing` where it is an API key's."""
    user = principal_of(connection).user
    if user is None:
        raise CredentialMissing("this is for users who are signed in, with an access token")
    return user


def require_all_galleries(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raise `ScopeMissing` for an API key that is limited to some galleries: it may make no others."""
    if principal_of(connection).galleries is not None:
        raise ScopeMissing("this API key is limited to some galleries: it cannot make others")


async def gallery_of(request: ASGIConnection[Any, Any, Any, Any], name: str | None) -> GalleryId | str:
    """Return the gallery that a path or a body names, by id or name; the default one where none is named.

    Raises `GalleryNotFound` for one that the credential is not for, as for one that is not there. That is written down:
    whoever has the credential looks for what is not theirs.
    """
    try:
        return await _gallery_of(request, name)
    except GalleryNotFound as error:
        note_refusal(request, error)
        raise


async def _gallery_of(request: ASGIConnection[Any, Any, Any, Any], name: str | None) -> GalleryId | str:
    named = gallery_named(name)
    allowed = principal_of(request).galleries
    if allowed is None:
        return named
    if not isinstance(named, str):
        found = named
    else:
        record = await request.app.state.dishka_container.get(Record)
        found = (await record.gallery(workspace_of(request), named)).id
    if found not in allowed:
        raise GalleryNotFound("no such gallery")
    # The id from here on: the name may be another gallery's in a moment.
    return found


def note_refusal(
    connection: ASGIConnection[Any, Any, Any, Any], error: FacepassError, principal: Principal | None = None
) -> None:
    """Write down for the audit log that a call was refused, in its workspace's chain where that is known.

    The route stands there and not the path: names are in that. A login that failed is its use case's to note.
    """
    batch = _kept(connection).get(_AUDIT)
    if batch is None or isinstance(error, LoginFailed):
        return
    caller = principal or _kept(connection).get(_PRINCIPAL)
    workspace = caller.workspace if isinstance(caller, Principal) else None
    batch.note_refusal(
        AuditEvent(
            workspace=INSTANCE if workspace is None else workspace,
            action=AuditAction.CALL_REFUSED,
            outcome=error.code,
            details={"call": call_of(connection)},
        )
    )


def call_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Return the name of what was called: what stands in a path may not be told."""
    call = _kept(connection).get(_CALL)
    return call if isinstance(call, str) else None


async def _prepare_refusal(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Have at hand what `note_refusal` needs: whoever answers with an error cannot wait for it."""
    with suppress(PortError):  # a database of another version: nobody is recognised, and nothing can be written
        kept = _kept(connection)
        kept[_AUDIT] = await connection.app.state.dishka_container.get(AuditBatch)
        kept[_CALL] = handler.handler_name


def _kept(connection: ASGIConnection[Any, Any, Any, Any]) -> MutableMapping[str, Any]:
    """Return what is kept of a call while it lasts: Litestar's `State` is made anew, with a lock, at each look."""
    return connection.scope  # type: ignore[return-value]  # ours beside Litestar's


def _set_origin(connection: ASGIConnection[Any, Any, Any, Any], principal: Principal | None) -> None:
    """Say for whom and from where everything is done that follows in this call."""
    kind = ActorKind.NOBODY
    if principal is not None:
        kind = ActorKind.KEY if principal.user is None else ActorKind.USER
    client = connection.client
    set_origin(
        Origin(
            kind=kind,
            actor=None if principal is None else principal.user or principal.key,
            network=network_of(None if client is None else client.host),
            request=untold_request_id(connection.scope.get(REQUEST_ID)),  # type: ignore[arg-type]  # ours beside Litestar's
        )
    )
