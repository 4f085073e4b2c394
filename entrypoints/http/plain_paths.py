"""Paths that no part of the service has to understand."""

import re
from collections.abc import Awaitable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from entrypoints.http.problems import refuse

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def plain_paths(app: ASGIApp) -> ASGIApp:
    """Refuse paths with control characters (400): neither files nor rows of PostgreSQL have a NUL in their names."""

    def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == ScopeType.HTTP and _CONTROL.search(scope["path"]):
            return refuse(scope, receive, send, 400, "the path holds a control character")
        return app(scope, receive, send)

    return middleware
