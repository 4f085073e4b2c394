import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, final

import structlog
from sqlalchemy import DateTime, bindparam, func, or_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import translated
from adapters.persistence.tables import API_KEYS
from application.ports.key_uses import KeyUses
from domain.credential import ApiKey, ApiKeyId
from domain.errors import FacepassError
from domain.workspace import WorkspaceId

WRITTEN_EVERY: Final = 5.0
"""Seconds."""
SAME: Final = timedelta(minutes=1)
"""Uses that are closer than this are one."""

_KEYS = API_KEYS.c
_AT = bindparam("at", type_=DateTime(timezone=True))
_WRITE = (
    update(API_KEYS)
    .where(
        _KEYS.workspace_id == bindparam("workspace"),
        _KEYS.id == bindparam("key"),
        # Another node may have been faster.
        or_(_KEYS.last_used_at.is_(None), _KEYS.last_used_at <= _AT - func.make_interval(0, 0, 0, 0, 0, 1)),
    )
    .values(last_used_at=_AT)
)

log = structlog.get_logger("facepass.key_uses")


@final
class SqlKeyUses(KeyUses):
    """Uses of API keys in PostgreSQL, collected for some seconds; nothing is written before `begin`."""

    def __init__(self, engine: AsyncEngine, *, every: float = WRITTEN_EVERY) -> None:
        self._engine = engine
        self._every = every
        self._noted: dict[tuple[WorkspaceId, ApiKeyId], datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, key: ApiKey, at: datetime) -> None:
        if key.last_used_at is None or at - key.last_used_at >= SAME:
            self._noted[key.workspace, key.id] = at

    def begin(self) -> None:
        """Write from now on, beside everything else, until `aclose`."""
        if self._task is None:
            self._task = asyncio.create_task(self._write())

    async def aclose(self) -> None:
        """Write what is left, and no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(FacepassError):
                await self._flush()

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._flush()
            except FacepassError as error:
                log.warning("key_uses_not_written", code=error.code)
            except Exception as error:  # noqa: BLE001 - a time that is lost is no reason to write none any more
                log.warning("key_uses_not_written", error=type(error).__qualname__)

    async def _flush(self) -> None:
        noted, self._noted = self._noted, {}
        if not noted:
            return
        # In one order, so that two nodes cannot wait for each other.
        rows = [{"workspace": workspace, "key": key, "at": at} for (workspace, key), at in sorted(noted.items())]
        with translated():
            async with self._engine.begin() as connection:
                await connection.execute(_WRITE, rows)
