from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
from litestar import Litestar

from entrypoints.http.app import make_app
from entrypoints.settings import DatabaseSettings, HttpSettings, RateLimitSettings, Settings
from tests.e2e.in_process import InProcess, in_process
from tests.e2e.with_jobs import WithJobs

SERVICE = "http://facepass"


def settings_of(url: str, folder: Path) -> Settings:
    """Return settings of a service over a database that is there already."""
    return Settings(data_dir=folder / "data", database=DatabaseSettings(url=url, timeout=5.0))


def with_http(settings: Settings, **http: object) -> Settings:
    """Return the same settings with another door."""
    return msgspec.structs.replace(settings, http=HttpSettings(**http))  # type: ignore[arg-type]  # a test's own words


def with_rates(settings: Settings, **rates: str) -> Settings:
    """Return the same settings with other rate limits, each of them none where it is not named."""
    none = {"key": "0", "user": "0", "address": "0", "auth": "0"}
    return msgspec.structs.replace(settings, rate_limits=RateLimitSettings(**{**none, **rates}))


def app_of(running: InProcess, settings: Settings) -> Litestar:
    """Return another application around the same backends."""
    return make_app(running.container, settings)


@asynccontextmanager
async def calling(
    app: Litestar, *, address: str = "192.0.2.1", key: str | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Call an application as somebody at an address."""
    headers = {} if key is None else {"X-API-Key": key}
    transport = httpx.ASGITransport(app, client=(address, 40_000))
    async with httpx.AsyncClient(transport=transport, base_url=SERVICE, headers=headers) as client:
        yield client


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[InProcess]:
    """Open a service over memory backends."""
    async with in_process(settings, WithJobs(), work=False) as running:
        yield running


def key_of(running: InProcess) -> str:
    """Return the key that may do everything."""
    return str(running.client.headers["X-API-Key"])
