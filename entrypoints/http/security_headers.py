"""What every answer tells a browser, so that it does no more with it than show it."""

from collections.abc import Awaitable, MutableMapping
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from entrypoints.settings import Settings

CONTENT_POLICY = "facepass_content_policy"
"""Under this name a page puts its own Content-Security-Policy into its scope."""

_OF_DATA = b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Answers that are no pages load nothing, run nothing and are shown inside nothing."""

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),  # for browsers that do not know frame-ancestors
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_BY_HTTPS_ALONE = (b"strict-transport-security", b"max-age=31536000")
"""For a year; names below this one are their owner's to decide about."""
_NOT_KEPT = (b"cache-control", b"no-store")
_KEPT = "/docs-assets/"
"""The one place whose answers are the same for everybody; caches may keep them."""


def page_policy(nonce: str) -> str:
    """Return the Content-Security-Policy of a page with files, styles and calls of this service alone.

    Scripts and styles inside the page run where they carry `nonce`, which is made anew for each answer.
    """
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; "
        "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self'"
    )


def security_headers(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Add them to each answer, also to errors; what a route sets itself stays as it is.

    Browsers are told to come by https alone where this call did, as a trusted proxy says, or where the setting says so.
    """
    https_alone = settings.http.hsts

    def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        mine: MutableMapping[str, Any] = scope  # type: ignore[assignment]  # ours beside Litestar's
        if mine["type"] != "http":
            return app(scope, receive, send)

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                policy = mine.get(CONTENT_POLICY)
                wanted = [*_ALWAYS, (b"content-security-policy", policy.encode() if policy else _OF_DATA)]
                if not mine["path"].startswith(_KEPT):
                    wanted.append(_NOT_KEPT)
                if https_alone or mine["scheme"] == "https":
                    wanted.append(_BY_HTTPS_ALONE)
                message["headers"] = [*message["headers"], *(one for one in wanted if one[0] not in given)]
            return send(message)

        return app(scope, receive, send_with_headers)

    return middleware
