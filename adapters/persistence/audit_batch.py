import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, Self, final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.audit_trail import Noted, chain, is_there
from adapters.persistence.connection import SqlConnection
from application.ports.audit import AuditBatch
from application.ports.clock import Clock
from application.ports.errors import PortBusy
from application.ports.keyed_hash import KeyedHash
from application.use_cases.audit.origin import SYSTEM, current_origin
from domain.audit import ActorKind, AuditAction, AuditEntry, AuditEvent
from domain.errors import PortError
from domain.workspace import WorkspaceId

WRITTEN_EVERY: Final = 0.25
"""Seconds."""

AT_ONCE: Final = 500
"""Entries of one transaction: a few milliseconds of the event loop."""

WAITING: Final = 20_000
"""Entries that may wait while the database takes none: some 20 MB. Where as many wait, a chain that has less than its
share of them may have it: one that takes none holds up no other."""

LONGEST_WAIT: Final = 5.0
"""Seconds between two tries while the database is away."""

CLOSING: Final = 15.0
"""Seconds that a process which ends gives a database that does not answer."""

REFUSALS: Final = 600
REFUSALS_A_SECOND: Final = 10.0
"""Refused calls of one process that are written down one by one: so many at once, and so many a second for ever. What
cannot be deleted must not grow as fast as anybody likes: this is a quarter of a gigabyte a day at most."""

COUNTED_EVERY: Final = 10.0
"""Seconds between two counts of the others."""

_log = structlog.get_logger(__name__)


@final
class SqlAuditBatch(AuditBatch):
    """Entries that wait in the process, and a task that chains them, a transaction a chain.

    Use it as a context: it begins with its block, and writes what still waits at the end of it.
    """

    def __init__(self, engine: AsyncEngine, keyed_hash: KeyedHash, clock: Clock) -> None:
        self._engine: Final = engine
        self._keyed_hash: Final = keyed_hash
        self._clock: Final = clock
        self._waiting: Final[dict[WorkspaceId, deque[Noted]]] = {}
        self._number = 0
        self._doubted: Final[dict[WorkspaceId, tuple[AuditEntry, int]]] = {}
        """Commits of which nobody knows whether they were done: the last entry, and how many there were."""
        self._refused: Final[Counter[WorkspaceId]] = Counter()
        self._counted_at = time.monotonic()
        self._allowed: Final = {True: _Allowance(), False: _Allowance()}
        self._some: Final = asyncio.Event()
        self._many: Final = asyncio.Event()
        self._writing: Final = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._count_refusals()
        try:
            async with asyncio.timeout(CLOSING):
                await self.flush()
        except (PortError, TimeoutError):
            _log.error("audit_entries_lost", entries=self._number, reason="the database took none until the end")

    def note(self, event: AuditEvent) -> None:
        if self._is_full(event.workspace):
            raise PortBusy("audit", "what was asked cannot be written down at this moment", retry_after=LONGEST_WAIT)
        self._take(Noted(event=event, origin=current_origin(), at=self._clock.now()))

    def note_refusal(self, event: AuditEvent) -> None:
        origin = current_origin()
        if not self._is_full(event.workspace) and self._allowed[origin.kind is ActorKind.NOBODY].take():
            self._take(Noted(event=event, origin=origin, at=self._clock.now()))
        else:
            self._refused[event.workspace] += 1
            self._some.set()

    async def flush(self, workspace: WorkspaceId | None = None) -> None:
        async with self._writing:
            failed: Exception | None = None
            asked = {one: len(noted) for one, noted in self._waiting.items() if workspace in {None, one}}
            for one, number in asked.items():
                try:
                    await self._write(one, number)
                except Exception as error:  # noqa: BLE001 - whatever it is, one chain holds up no other
                    failed = error
            if failed is not None:
                raise failed

    def _is_full(self, workspace: WorkspaceId) -> bool:
        ours = len(self._waiting.get(workspace, ()))
        return self._number >= WAITING and ours * len(self._waiting) >= WAITING

    def _take(self, noted: Noted) -> None:
        self._waiting.setdefault(noted.event.workspace, deque()).append(noted)
        self._number += 1
        self._some.set()
        if self._number >= AT_ONCE:
            self._many.set()

    async def _write_on(self) -> None:
        pause = 0.0
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._many.wait(), WRITTEN_EVERY)
            self._some.clear()
            self._many.clear()
            if time.monotonic() - self._counted_at >= COUNTED_EVERY:
                self._count_refusals()
            elif self._refused:
                self._some.set()
            try:
                await self.flush()
                pause = 0.0
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits is tried again
                if not pause:
                    known = isinstance(error, PortError)
                    _log.error(
                        "audit_entries_wait",
                        entries=self._number,
                        reason=str(error) if known else type(error).__qualname__,
                        exc_info=None if known else error,
                    )
                pause = min(max(2 * pause, WRITTEN_EVERY), LONGEST_WAIT)
                self._some.set()
                await asyncio.sleep(pause)

    def _count_refusals(self) -> None:
        for workspace, number in self._refused.items():
            event = AuditEvent(workspace=workspace, action=AuditAction.CALLS_REFUSED, details={"calls": number})
            self._take(Noted(event=event, origin=SYSTEM, at=self._clock.now()))
            _log.warning("calls_refused", calls=number, reason="more than the audit log takes one by one")
        self._refused.clear()
        self._counted_at = time.monotonic()

    async def _write(self, workspace: WorkspaceId, number: int) -> None:
        waiting = self._waiting[workspace]
        while number > 0:
            done = await self._chained(workspace, list(islice(waiting, min(number, AT_ONCE))))
            for _ in range(done):
                waiting.popleft()
            number -= done
            self._number -= done
        if not waiting:
            del self._waiting[workspace]

    async def _chained(self, workspace: WorkspaceId, noted: Sequence[Noted]) -> int:
        """Write these, and return how many of the first that wait are written now."""
        connection = SqlConnection(self._engine)
        try:
            if workspace in self._doubted:
                last, number = self._doubted[workspace]
                there = await is_there(connection, last)
                del self._doubted[workspace]
                if there:
                    return number
            last = await chain(connection, self._keyed_hash, workspace, noted)
            self._doubted[workspace] = (last, len(noted))
            await connection.commit()
            del self._doubted[workspace]
            return len(noted)
        finally:
            await connection.aclose()


@final
class _Allowance:
    """So many at once, and so many a second."""

    def __init__(self) -> None:
        self._left = float(REFUSALS)
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(float(REFUSALS), self._left + (now - self._at) * REFUSALS_A_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
