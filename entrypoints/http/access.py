"""Who is calling, and whether they may."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from application.use_cases.keys.authenticate import Authenticate
from domain.credential import Principal, Scope
from domain.errors import CredentialMissing

HEADER = "x-api-key"
SCOPE_OPTION = "needs"
"""Every route names the scope it needs under this option; a test says that none is without."""

_PRINCIPAL = "facepass_principal"


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse calls without a good key (401) and keys without the scope that the route needs (403)."""
    if connection.scope.get("method") == "OPTIONS":
        return  # the framework's own answer: which methods a path takes, and nothing else
    needed = Scope(handler.opt[SCOPE_OPTION])
    secret = connection.headers.get(HEADER)
    if not secret:
        raise CredentialMissing("this needs an API key in the header X-API-Key; `facepass bootstrap` makes one")
    authenticate = await connection.app.state.dishka_container.get(Authenticate)
    principal = await authenticate(secret)
    principal.require(needed)
    connection.state[_PRINCIPAL] = principal


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Return whose call this is, once the guard let it in."""
    principal = connection.state.get(_PRINCIPAL)
    if not isinstance(principal, Principal):
        raise CredentialMissing("no credential came with the call")
    return principal
