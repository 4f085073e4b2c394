"""Under which names the service answers."""

from collections.abc import Awaitable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from entrypoints.http.problems import refuse
from entrypoints.settings import Settings


def allowed_hosts(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Refuse calls for another host than the settings name (400), where they name any.

    A page that had its name point at this service cannot use a visitor's browser to call it then. Health is asked by
    machines that know an address only, and tells nothing.
    """
    names = frozenset(name for name in settings.http.allowed_hosts if not name.startswith("*."))
    below = tuple(name.removeprefix("*") for name in settings.http.allowed_hosts if name.startswith("*."))
    if not names and not below:
        return app

    def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == ScopeType.HTTP and not scope["path"].startswith("/health"):
            given = [value for name, value in scope["headers"] if name == b"host"]
            host = _without_port(given[0].decode("latin-1").lower()) if len(given) == 1 else ""
            if host not in names and not host.endswith(below or ("\n",)):
                return refuse(scope, receive, send, 400, "the service does not answer under the name in Host")
        return app(scope, receive, send)

    return middleware


def _without_port(host: str) -> str:
    """Return `host` of `host:8000`, and `[::1]` of `[::1]:8000`."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() and (":" not in name or name.endswith("]")) else host
