"""From a container to a service that is ready."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dishka import AsyncContainer, Provider

from application.ports.model_packs import Progress
from application.use_cases.keys.authenticate import Authenticate
from application.use_cases.matching.search_faces import SearchFaces
from application.use_cases.upkeep.check_readiness import CheckReadiness
from domain.errors import FacepassError
from entrypoints.settings import Settings
from entrypoints.wiring.container import make_container
from entrypoints.wiring.start_error import StartError


@asynccontextmanager
async def opened(
    settings: Settings, *overrides: Provider, progress: Progress | None = None
) -> AsyncIterator[AsyncContainer]:
    """Open a container for a block and close it behind it. Raises `StartError` where something cannot start."""
    container = make_container(settings, *overrides, progress=progress)
    try:
        yield container
    finally:
        await container.close()


async def started(container: AsyncContainer) -> None:
    """Make everything that a first request needs, at once: nothing is downloaded or loaded while a client waits.

    Raises `StartError` with the reason.
    """
    try:
        # The database and the models take their time in different places.
        await asyncio.gather(container.get(Authenticate), container.get(SearchFaces))
        await container.get(CheckReadiness)
    except FacepassError as error:
        raise StartError(f"{error.message} ({error.code})") from error
