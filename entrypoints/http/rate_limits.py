"""How often somebody may call."""

import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, final

from dishka import AsyncContainer
from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from application.ports.rate_limiter import Allowance, Rate, RateLimiter
from domain.credential import Principal
from domain.errors import FacepassError, InvalidRequest, NotFound, RateLimited, Refused
from domain.user import UserId
from entrypoints.settings import RateLimitSettings, rate_of

Connection = ASGIConnection[Any, Any, Any, Any]

_LEFT = "facepass_allowance"
_TRUSTED_SECONDS: Final = 600.0
"""How long a credential that was good is tried again from an address that is past its limit."""
_TRUSTED: Final = 10_000
_CUSTOMERS_BITS: Final = 64
"""Of an IPv6 address: whoever has one has all that begin with these."""


@final
class RateLimits:
    """Counts calls by the key or the user that they come with; without a good credential, by address.

    Whoever fails too often is refused before anything is looked up. Others at the same address, behind one router or
    one proxy that is not trusted, are not: a credential that was good a while ago goes on being tried, and so does an
    access token that was signed here. A key that this process has not seen yet waits until the address may call again.

    A credential is looked up before its failure is counted, so those that come at one moment are all looked up, however
    many are left. Past the limit each is a 429 all the same, unless it is good: nobody guesses one of 256 bits.
    """

    def __init__(self, container: AsyncContainer, settings: RateLimitSettings) -> None:
        """Take where the limiter comes from; it is asked for with the first call that is counted."""
        self._container = container
        self._limiter: RateLimiter | None = None
        self._key = rate_of(settings.key)
        self._user = rate_of(settings.user)
        self._address = rate_of(settings.address)
        self._auth = rate_of(settings.auth)
        self._was_good: OrderedDict[bytes, float] = OrderedDict()
        self._secret = secrets.token_bytes(32)

    async def open_call(self, connection: Connection) -> None:
        """Count a call that needs no credential: logging in, and what belongs to it. Raises `RateLimited`."""
        await self._take(connection, f"auth:{address_of(connection)}", self._auth)

    async def counted(
        self,
        connection: Connection,
        credential: str | None,
        recognise: Callable[[], Awaitable[tuple[Principal, FacepassError | None]]],
        *,
        is_ours: Callable[[], Awaitable[bool]],
    ) -> tuple[Principal, FacepassError | None]:
        """Return what `recognise` does, and count the call. Raises `RateLimited`, and what `recognise` raises.

        Whoever is recognised is counted as such, whatever stands against the call. `is_ours` tells without asking
        anybody whether it is a credential that cannot be a guess.
        """
        mark = None if credential is None else blake2b(credential.encode(), key=self._secret, digest_size=16).digest()
        address = f"address:{address_of(connection)}"
        if self._address is not None and not self._is_trusted(mark):
            left = await (await self._ready()).look(address, self._address)
            if left.allowed or not await is_ours():
                _require(connection, self._address, left)
        try:
            found = await recognise()
        except (Refused, NotFound, InvalidRequest):
            if mark is not None:
                self._was_good.pop(mark, None)
            await self._take(connection, address, self._address)
            raise
        if mark is not None:
            self._trust(mark)
        principal, _ = found
        if principal.user is not None:
            await self._take(connection, f"user:{principal.user}", self._user)
        else:
            await self._take(connection, f"key:{principal.key}", self._key)
        return found

    async def password_call(self, connection: Connection, user: UserId) -> None:
        """Count a call that costs hashes of a password, by the user whose it is. Raises `RateLimited`."""
        await self._take(connection, f"password:{user}", self._auth)

    async def _take(self, connection: Connection, key: str, rate: Rate | None) -> None:
        if rate is not None:
            left = await (await self._ready()).take(key, rate)
            _require(connection, rate, left)

    async def _ready(self) -> RateLimiter:
        if self._limiter is not None:
            return self._limiter
        limiter: RateLimiter = await self._container.get(RateLimiter)
        self._limiter = limiter
        return limiter

    def _is_trusted(self, mark: bytes | None) -> bool:
        return mark is not None and time.monotonic() < self._was_good.get(mark, 0.0)

    def _trust(self, mark: bytes) -> None:
        self._was_good[mark] = time.monotonic() + _TRUSTED_SECONDS
        self._was_good.move_to_end(mark)
        if len(self._was_good) > _TRUSTED:
            self._was_good.popitem(last=False)


def address_of(connection: Connection) -> str:
    """Return what calls of one customer have in common: an address, of IPv6 the network that a customer is given."""
    return _customer("" if connection.client is None else connection.client.host)


@lru_cache(maxsize=4096)
def _customer(host: str) -> str:
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _CUSTOMERS_BITS), strict=False))
    return str(found)


def rate_limit_headers(app: ASGIApp) -> ASGIApp:
    """Say on each answer that was counted how many calls are left.

    `RateLimit-Limit`, `-Remaining`, `-Reset` and `-Policy` as in draft-ietf-httpapi-ratelimit-headers-06: the form that
    clients know; later drafts have other ones. `-Reset` is when all calls are allowed again.
    """

    def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        mine: MutableMapping[str, Any] = scope  # type: ignore[assignment]  # ours beside Litestar's

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start" and _LEFT in mine:
                rate, left = mine[_LEFT]
                message["headers"] = [
                    *message["headers"],
                    (b"ratelimit-limit", b"%d" % rate.count),
                    (b"ratelimit-remaining", b"%d" % left.remaining),
                    (b"ratelimit-reset", b"%d" % math.ceil(left.reset_after)),
                    (b"ratelimit-policy", b"%d;w=%d" % (rate.count, rate.seconds)),
                ]
            return send(message)

        return app(scope, receive, send_with_headers)

    return middleware


def _require(connection: Connection, rate: Rate, left: Allowance) -> None:
    connection.scope[_LEFT] = (rate, left)  # type: ignore[literal-required]  # ours beside Litestar's
    if not left.allowed:
        raise RateLimited(
            f"more than {rate.count} calls in {rate.seconds} seconds; Retry-After says when to go on",
            retry_after=left.retry_after,
        )
