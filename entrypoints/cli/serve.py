"""`facepass serve`."""

import asyncio
import gc
import math
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import click
import msgspec
import uvicorn
from litestar import Litestar

from entrypoints.cli.processes import DRAIN_SECONDS, Parent, keep_serving, this_program
from entrypoints.cli.session import run, session, settings_of_process
from entrypoints.http.app import make_app
from entrypoints.settings import PREFIX, FaceEmbedderSettings, Settings
from entrypoints.wiring.background import background
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import started

_FEWEST_CONNECTIONS = 2
"""Of one pool: below, calls of one process wait for each other's transactions."""

_COLLECT_AFTER = 10_000
"""Objects that are made, less those that went, between two looks for circles among them; Python looks after 700. With
this, and what the start has made set aside, sixteen rounds in turn: 1.01 times the verifications of four clients, 0.99
of the event loop's processor time."""


@click.command()
@click.option("--host", help="Address to listen on. Default: FACEPASS_HTTP__HOST, 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port, 0 for any free one. Default: FACEPASS_HTTP__PORT, 8000."
)
@click.option("--parent", type=int, hidden=True)
@click.pass_context
def serve(context: click.Context, host: str | None, port: int | None, parent: int | None) -> None:
    """Run the service.

    Until it is interrupted; calls that run then are ended first. FACEPASS_HTTP__PROCESSES of them share the port.
    """
    settings = settings_of_process()
    chosen = msgspec.structs.replace(
        settings.http,
        host=settings.http.host if host is None else host,
        port=settings.http.port if port is None else port,
    )
    settings = msgspec.structs.replace(settings, http=chosen)
    if parent is not None:
        run(_serve_a_share, share_of(settings), Parent(parent))
    elif settings.http.processes == 1:
        run(_serve_alone, settings)
    else:
        debugging = ["--debug"] if context.find_root().params.get("debug") else []
        run(_serve_together, settings, this_program(*debugging, "serve"))


def share_of(settings: Settings) -> Settings:
    """Return what one of several processes may use, so that all of them use what was set.

    Decoding cannot be shared out below the largest image: the settings were checked for that.
    """
    count = settings.http.processes
    image = msgspec.structs.replace(settings.image, budget_megapixels=settings.image.budget_megapixels / count)
    pool_size = max(_FEWEST_CONNECTIONS, math.ceil(settings.database.pool_size / count))
    return msgspec.structs.replace(
        settings,
        image=image,
        database=msgspec.structs.replace(settings.database, pool_size=pool_size),
        face_embedder=_share_of_threads(settings.face_embedder, count),
        next_face_embedder=_share_of_threads(settings.next_face_embedder, count),
    )


def _share_of_threads(chosen: FaceEmbedderSettings, count: int) -> FaceEmbedderSettings:
    threads = chosen.threads or os.cpu_count() or 1
    return msgspec.structs.replace(chosen, threads=math.ceil(threads / count))


async def _serve_alone(settings: Settings) -> None:
    await _serve(settings, None, lambda server: click.echo(_listens(server.servers[0].sockets[0], settings)))


async def _serve_a_share(settings: Settings, parent: Parent) -> None:
    ending = asyncio.create_task(_end_with(parent))
    with _shared_door(settings.http.host, settings.http.port) as door:
        await _serve(settings, door, lambda _: parent.tell_ready())
    ending.cancel()


async def _end_with(parent: Parent) -> None:
    await parent.gone()
    signal.raise_signal(signal.SIGTERM)


async def _serve_together(settings: Settings, command: tuple[str, ...]) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise StartError(f"{PREFIX}HTTP__PROCESSES: this system has no way to share a port; use 1")
    with _reserved(settings) as door:
        host, port = door.getsockname()[:2]
        await keep_serving(
            [*command, "--host", host, "--port", str(port)],
            count=settings.http.processes,
            ready=lambda: click.echo(_listens(door, settings)),
        )


async def _serve(settings: Settings, door: socket.socket | None, ready: Callable[[uvicorn.Server], None]) -> None:
    """Serve until a signal; `ready` is called once this process answers."""
    async with session(settings) as container:
        await started(container)
        server = uvicorn.Server(config_of(make_app(container, settings), settings))
        async with background(container), _outlived_signals(server):
            listening = asyncio.create_task(_listen(server, settings, door))
            while not server.started and not listening.done():  # noqa: ASYNC110 - uvicorn has a flag, and no event
                await asyncio.sleep(0.01)
            if server.started:
                _collect_rarely()
                ready(server)
            await listening


def config_of(app: Litestar, settings: Settings) -> uvicorn.Config:
    """Return how the application is served."""
    return uvicorn.Config(
        app,
        host=settings.http.host,
        port=settings.http.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        proxy_headers=False,  # the application does it, for the proxies that the settings name
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _collect_rarely() -> None:
    """Look for circles of objects no more among what the start has made, and more rarely among what calls make."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


async def _listen(server: uvicorn.Server, settings: Settings, door: socket.socket | None) -> None:
    try:
        await server.serve(None if door is None else [door])
    except (SystemExit, OSError) as error:  # how uvicorn says that it cannot bind; the first must not leave the task
        raise _taken(settings) from error


def _reserved(settings: Settings) -> socket.socket:
    """Keep the port for our processes, also while one is replaced; nobody gets in before one of them listens."""
    try:
        # Whoever shares a port gets a part of its calls, so first nobody else may be there, sharing or not.
        with _door(settings.http.host, settings.http.port) as alone:
            host, port = alone.getsockname()[:2]
        return _shared_door(host, port)
    except OSError as error:
        raise _taken(settings) from error


def _shared_door(host: str, port: int) -> socket.socket:
    """Return a socket of one process's own, among which the system spreads connections evenly.

    From one socket for all, the process whose loop wakes first takes most: while its models are at work in threads
    its loop is idle, and it takes the next one too.
    """
    return _door(host, port, socket.SO_REUSEPORT)


def _door(host: str, port: int, *options: int) -> socket.socket:
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        for option in (socket.SO_REUSEADDR, *options):
            door.setsockopt(socket.SOL_SOCKET, option, 1)
        door.bind((host, port))
    except OSError:
        door.close()
        raise
    return door


def _taken(settings: Settings) -> StartError:
    return StartError(
        f"cannot listen on {settings.http.host} port {settings.http.port}: is another service there? "
        f"--port or {PREFIX}HTTP__PORT names another port, 0 any free one"
    )


@asynccontextmanager
async def _outlived_signals(server: uvicorn.Server) -> AsyncIterator[None]:
    """Let the block's end come after uvicorn's.

    Uvicorn ends in order at a signal and then raises it again, for whoever handled it before: by default that kills the
    process on the spot, with jobs, pools and the private database still open. One that comes before uvicorn listens to
    signals ends it too.
    """
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listens(door: socket.socket, settings: Settings) -> str:
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"Facepass listens on http://{shown}:{port}" + ("  (API pages: /docs)" if settings.serves_docs else "")
