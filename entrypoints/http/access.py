"""Who is calling, and whether they may."""

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from application.ports.record import Record
from application.use_cases.audit.origin import set_origin
from application.use_cases.keys.authenticate import Authenticate
from domain.audit import ActorKind, Origin, network_of, untold_request_id
from domain.credential import Principal
from domain.errors import CredentialMissing, GalleryNotFound, WorkspaceUnclear
from domain.gallery import GalleryId
from domain.permission import Permission
from domain.workspace import WorkspaceId
from entrypoints.http.names import gallery_named
from entrypoints.http.request_context import REQUEST_ID

HEADER = "x-api-key"
PERMISSION_OPTION = "needs"
"""Every route names the permission it needs under this option; a test says that none is without."""

_PRINCIPAL = "facepass_principal"


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse calls without a good credential (401) and those that may not do what the route needs (403)."""
    if connection.scope.get("method") == "OPTIONS":
        return  # the framework's own answer: which methods a path takes, and nothing else
    needed = Permission(handler.opt[PERMISSION_OPTION])
    _set_origin(connection, None)
    secret = connection.headers.get(HEADER)
    if not secret:
        raise CredentialMissing("this needs an API key in the header X-API-Key; `facepass bootstrap` makes one")
    authenticate = await connection.app.state.dishka_container.get(Authenticate)
    principal = await authenticate(secret)
    connection.state[_PRINCIPAL] = principal
    _set_origin(connection, principal)
    principal.require(needed)


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Return whose call this is, once the guard let it in."""
    principal = connection.state.get(_PRINCIPAL)
    if not isinstance(principal, Principal):
        raise CredentialMissing("no credential came with the call")
    return principal


def workspace_of(connection: ASGIConnection[Any, Any, Any, Any]) -> WorkspaceId:
    """Return the workspace that a call is about, once the guard let it in."""
    workspace = principal_of(connection).workspace
    if workspace is None:
        raise WorkspaceUnclear("name the workspace in the header X-Workspace-Id")
    return workspace


async def gallery_of(request: Request[Any, Any, Any], name: str | None) -> GalleryId | str:
    """Return the gallery that a path or a body names, by id or name; the default one where none is named.

    Raises `GalleryNotFound` for one that the credential is not for, as for one that is not there.
    """
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
