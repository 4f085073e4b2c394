"""`facepass serve`."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click
import msgspec
import uvicorn

from entrypoints.cli.session import run, session, settings_of_process
from entrypoints.http.app import make_app
from entrypoints.settings import Settings
from entrypoints.wiring.background import background
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import started

_DRAIN_SECONDS = 20


@click.command()
@click.option("--host", help="Address to listen on. Default: FACEPASS_HTTP__HOST, 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port, 0 for any free one. Default: FACEPASS_HTTP__PORT, 8000."
)
def serve(host: str | None, port: int | None) -> None:
    """Run the service.

    Until it is interrupted; calls that run then are ended first.
    """
    settings = settings_of_process()
    chosen = msgspec.structs.replace(
        settings.http,
        host=settings.http.host if host is None else host,
        port=settings.http.port if port is None else port,
    )
    run(_serve, msgspec.structs.replace(settings, http=chosen))


async def _serve(settings: Settings) -> None:
    async with session(settings) as container:
        await started(container)
        app = make_app(container, settings)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=settings.http.host,
                port=settings.http.port,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                lifespan="off",
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        async with background(container), _outlived_signals():
            listening = asyncio.create_task(_listen(server, settings))
            while not server.started and not listening.done():  # noqa: ASYNC110 - uvicorn has a flag, and no event
                await asyncio.sleep(0.01)
            if server.started:
                click.echo(f"Facepass listens on {_address(server, settings)}")
            await listening


async def _listen(server: uvicorn.Server, settings: Settings) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # how uvicorn says that it cannot bind; it must not leave the task
        raise StartError(
            f"cannot listen on {settings.http.host} port {settings.http.port}: is another service there? "
            "--port or FACEPASS_HTTP__PORT names another port, 0 any free one"
        ) from error


@asynccontextmanager
async def _outlived_signals() -> AsyncIterator[None]:
    """Let the block's end come after uvicorn's.

    Uvicorn ends in order at a signal and then raises it again, for whoever handled it before: by default that kills the
    process on the spot, with jobs, pools and the private database still open.
    """
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _address(server: uvicorn.Server, settings: Settings) -> str:
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}" + ("  (API pages: /docs)" if settings.http.docs else "")
