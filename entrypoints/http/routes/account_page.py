"""/account: where a one-time link leads."""

from pathlib import Path
from typing import Final

from litestar import Response, get

_FOLDER: Final = Path(__file__).parents[1] / "account_page"

_HEADERS: Final = {
    "Content-Security-Policy": ("default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}
"""Nothing of another origin is loaded, no script but the page's own runs, and nobody can frame it."""


@get("/account", media_type="text/html", include_in_schema=False, sync_to_thread=False)
def account_page() -> Response[bytes]:
    """Serve the page on which one sets a password or accepts an invitation."""
    return _file("account.html", "text/html")


@get("/account/account.css", media_type="text/css", include_in_schema=False, sync_to_thread=False)
def account_style() -> Response[bytes]:
    """Serve how it looks."""
    return _file("account.css", "text/css")


@get("/account/account.js", media_type="text/javascript", include_in_schema=False, sync_to_thread=False)
def account_script() -> Response[bytes]:
    """Serve what it does."""
    return _file("account.js", "text/javascript")


def _file(name: str, media_type: str) -> Response[bytes]:
    return Response((_FOLDER / name).read_bytes(), media_type=media_type, headers=_HEADERS)
