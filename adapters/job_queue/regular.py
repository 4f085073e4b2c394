import asyncio

import structlog

from application.ports.job_queue import Regular
from domain.errors import FacepassError

_log = structlog.get_logger(__name__)


async def repeat(piece: Regular) -> None:
    """Do a piece of regular work at once and every so often, until cancelled."""
    clock = asyncio.get_running_loop().time
    while True:
        begun = clock()
        await attempt(piece)
        await asyncio.sleep(max(0.0, begun + piece.every - clock()))
        if is_cancelled():  # the work may have swallowed it
            raise asyncio.CancelledError


async def attempt(piece: Regular) -> None:
    """Do it once. Only being cancelled gets out; whatever else does is a line in the log."""
    try:
        await piece.work()
    except FacepassError as error:
        _log.warning("regular_work_failed", what=piece.name, code=error.code, reason=error.message)
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        # The work gave up something of its own; nobody asked this task to stop.
        _log.warning("regular_work_failed", what=piece.name, error=type(error).__qualname__)
    except Exception as error:  # noqa: BLE001 - whatever comes out of it, it comes round again
        # Neither message nor traceback: both can hold what a log must not.
        _log.warning("regular_work_failed", what=piece.name, error=type(error).__qualname__)


def is_cancelled() -> bool:
    """Whether somebody asked the task that runs now to stop, even where a handler has swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
