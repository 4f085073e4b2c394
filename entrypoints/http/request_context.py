"""What every request carries: an id, a clock, a line in the log."""

import re
import time
from collections.abc import Awaitable
from typing import Any
from uuid import uuid4

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = b"x-request-id"
STARTED = "facepass_started"
REQUEST_ID = "facepass_request_id"

_TAKEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = structlog.get_logger("facepass.http")


def request_context(app: ASGIApp) -> ASGIApp:
    """Give each request an id, taken from `X-Request-Id` where it is a plain one, and log what became of it.

    Paths are logged without their query: an `external_id` may stand there.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        mine: dict[str, Any] = scope  # type: ignore[assignment]  # ours beside Litestar's
        if mine["type"] != "http":
            await app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID_HEADER), b"")
        request_id = given.decode() if _TAKEN.fullmatch(given) else uuid4().hex
        started = time.perf_counter()
        mine[STARTED] = started
        mine[REQUEST_ID] = request_id
        status = 0

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER, request_id.encode())]
            return send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await app(scope, receive, send_with_id)
            finally:
                log.debug(
                    "request",
                    method=mine["method"],
                    path=scope["path"],
                    status=status,
                    took_ms=round((time.perf_counter() - started) * 1000, 1),
                )

    return middleware


def took_ms(scope: Any) -> float:  # noqa: ANN401 - Litestar's scopes are typed dictionaries, ours beside theirs
    """Return the milliseconds since the request came in."""
    started: float = scope[STARTED]
    return round((time.perf_counter() - started) * 1000, 2)
