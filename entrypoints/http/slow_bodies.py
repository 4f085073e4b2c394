"""How long a client may take to send a body."""

import asyncio
import time
from collections.abc import Awaitable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send, WebSocketReceiveMessage

from entrypoints.http.problems import refuse
from entrypoints.settings import Settings


class _TooSlow(BaseException):
    """Ends a call from within; no handler of errors on the way takes it for one of the service's own."""


def slow_bodies(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Answer 408 and close the connection where a body, or its next part, does not come in time.

    A client that sends a byte a second would hold a connection and its memory for as long as it likes. The time that
    the service itself takes does not count, nor does waiting for a client to hang up once its body is there.
    """
    whole, idle = settings.http.body_seconds, settings.http.body_idle_seconds

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        left = whole
        complete = answered = False

        async def receive_in_time() -> HTTPReceiveMessage | WebSocketReceiveMessage:
            nonlocal left, complete
            if complete:
                return await receive()
            began = time.monotonic()
            try:
                async with asyncio.timeout(min(left, idle)):
                    message = await receive()
            except TimeoutError:
                raise _TooSlow from None
            left -= time.monotonic() - began
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        def send_and_note(message: Message) -> Awaitable[None]:
            nonlocal answered
            answered = True
            return send(message)

        try:
            await app(scope, receive_in_time, send_and_note)
        except _TooSlow:
            if answered:
                raise
            await refuse(
                scope, receive, send, 408, "the body did not come in time; send it again", {"Connection": "close"}
            )

    return middleware
