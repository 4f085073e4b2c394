import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import final

from application.ports.errors import PortBusy, PortUnavailable
from application.use_cases.jobs.get_job import GetJob
from domain.errors import InvalidRequest, NotFound, Refused
from domain.gallery import GalleryId
from domain.job import Job, JobId, require_among
from domain.workspace import WorkspaceId

LOOK_EVERY = 1.0
"""Seconds: progress is written as often."""

SILENT_FOR = 15.0
"""Seconds without news after which something is said all the same: proxies drop connections that are silent for 30 to
60 seconds."""

WATCHED_FOR = 900.0
"""Seconds of one connection: one that nobody reads any more must end by itself."""


async def _always() -> None:
    pass


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchJob:
    """Tell a job as it is, and again whenever something about it changes, until it has ended.

    Whoever watches is recognised again at each look: a key that is revoked or a role that is lost ends it.
    """

    scope: Callable[[], AbstractAsyncContextManager[GetJob]]
    """A unit of work for each look: no connection is held between two."""
    look_every: float = LOOK_EVERY
    silent_for: float = SILENT_FOR
    watched_for: float = WATCHED_FOR

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        job: JobId,
        galleries: frozenset[GalleryId] | None = None,
        require_allowed: Callable[[], Awaitable[None]] = _always,
    ) -> AsyncIterator[Job | None]:
        """Yield the job, or None where there was no news for a while.

        The first one comes at once, or raises `JobNotFound`. A database that is gone later is no news, and one who is
        not allowed it any more hears no more.
        """
        time = asyncio.get_running_loop().time
        ends = time() + self.watched_for
        shown = require_among(await self._look(workspace, job), galleries)
        yield shown
        told = time()
        while not shown.ended and time() < ends:
            await asyncio.sleep(self.look_every)
            try:
                await require_allowed()
                now = await self._look(workspace, job)
            except (Refused, NotFound, InvalidRequest):
                return
            except (PortUnavailable, PortBusy):
                now = shown
            if now != shown:
                shown = now
                yield shown
                told = time()
            elif time() - told >= self.silent_for:
                yield None
                told = time()

    async def _look(self, workspace: WorkspaceId, job: JobId) -> Job:
        async with self.scope() as show:
            found = await show(workspace=workspace, job=job)
        # A lease that was renewed is no news.
        return replace(found, held_until=None)
