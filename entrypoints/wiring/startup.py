"""From a container to a service that is ready."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from dishka import AsyncContainer, Provider

from adapters.persistence.index_states import SqlIndexStates
from adapters.persistence.key_uses import SqlKeyUses
from adapters.persistence.notices import SqlListener
from adapters.persistence.schema_ping import SCHEMA
from application.ports.errors import PortUnavailable
from application.ports.model_packs import Progress
from application.use_cases.erasure.ledger_gate import LedgerGate
from application.use_cases.keys.authenticate import Authenticate
from application.use_cases.keys.authenticate_user import AuthenticateUser
from application.use_cases.matching.search_faces import SearchFaces
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.check_readiness import CheckReadiness
from domain.errors import FacepassError
from entrypoints.settings import Settings
from entrypoints.wiring.adapters import Port, third_party
from entrypoints.wiring.container import make_container
from entrypoints.wiring.start_error import StartError, in_words

log = structlog.get_logger("facepass.startup")


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

    A database that waits for `facepass db upgrade` stops nothing: readiness says so, calls are answered with 503, and
    what needs the schema is made with the first call after it. Raises `StartError` with any other reason.
    """
    try:
        (await container.get(SqlListener)).begin()
        (await container.get(SqlKeyUses)).begin()
        try:
            await container.get(Authenticate)
            await container.get(AuthenticateUser)
            await container.get(SearchFaces)
            await _require_index(container)
            _require_liveness(await container.get(Settings))
            await (await container.get(LedgerGate)).passed()
        except PortUnavailable as error:
            if error.port != SCHEMA:
                raise
            log.warning("schema_outdated", reason=error.message)
        await container.get(CheckReadiness)
    except FacepassError as error:
        raise StartError(in_words(error)) from error


def _require_liveness(settings: Settings) -> None:
    """Raise `StartError` where a check is named that is not there; no call asks it yet."""
    if settings.liveness_checker.backend:
        third_party(Port.LIVENESS_CHECKER, settings.liveness_checker.backend)


async def _require_index(container: AsyncContainer) -> None:
    """Raise `StartError` where the index that answers searches is one that the settings do not name."""
    state = await (await container.get(SqlIndexStates)).adopt()
    here = (await container.get(ServedSpaces)).first.indexes
    if state.serving not in here:
        raise StartError(
            f"FACEPASS_VECTOR_INDEX__NAME: people are enrolled, and the index that answers is called {state.serving!r},"
            f" not {next(iter(here))!r}. Where both are the same, call it so: "
            f"FACEPASS_VECTOR_INDEX__NAME={state.serving}. To move, set the second up as FACEPASS_NEXT_VECTOR_INDEX__* "
            "and see `facepass index migrate --help`"
        )
