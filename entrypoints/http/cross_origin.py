"""Which pages may call from a browser."""

from litestar.config.cors import CORSConfig

from entrypoints.settings import Settings

TAKEN = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-API-Key",
    "X-Request-Id",
    "X-Workspace-Id",
)
"""Headers that a page may send."""

SHOWN = (
    "ETag",
    "Location",
    "Preference-Applied",
    "RateLimit-Limit",
    "RateLimit-Policy",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
)
"""Headers of an answer that a page may read."""


def cross_origin(settings: Settings) -> CORSConfig | None:
    """Return what the framework answers to browsers that ask for a page of elsewhere; None: nothing.

    Credentials come in headers that a page must know, never in cookies, so that none are allowed: the browser of
    somebody who is signed in brings a strange page nothing.
    """
    if not settings.http.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.http.cors_origins),
        allow_methods=["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"],
        allow_headers=list(TAKEN),
        expose_headers=list(SHOWN),
        allow_credentials=False,
    )
