import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec
import uvicorn
from litestar import Litestar

from entrypoints.cli.serve import config_of
from entrypoints.settings import Settings


@asynccontextmanager
async def listening(app: Litestar, settings: Settings) -> AsyncIterator[str]:
    """Serve an application as `facepass serve` does, on a port of this machine; its address."""
    chosen = msgspec.structs.replace(settings, http=msgspec.structs.replace(settings.http, port=0))
    server = uvicorn.Server(config_of(app, chosen))
    # Signals stay the test runner's.
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done()
        await asyncio.sleep(0.005)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await running


@contextmanager
def _no_signals() -> Iterator[None]:
    yield
