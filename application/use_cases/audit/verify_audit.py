import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from application.ports.audit import AuditBatch, AuditFilter, AuditLog, ChainBeginnings
from application.ports.errors import PortBusy
from application.ports.keyed_hash import KeyedHash
from domain.audit import INSTANCE
from domain.audit_chain import ChainCheck, ChainReport, KnownHead
from domain.workspace import WorkspaceId

_ALL = AuditFilter()
_RETRY_AFTER = 10.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyAudit:
    """Walk along a chain, compute every entry's keyed hash again, and name what was changed, removed or inserted.

    Whoever holds the database and not the key cannot make an entry that fits, nor set the end of the chain back to
    one that they have never seen there, nor begin a chain anew: its first entry says that its workspace was made. An
    end that was cut off by somebody who kept an earlier one shows against a head that was kept elsewhere (`head`): so
    keep what this returns as `head`.

    A long chain is minutes of work, so a process walks along one at a time: whoever asks meanwhile gets a 503 `busy`.
    """

    log: AuditLog
    beginnings: ChainBeginnings
    batch: AuditBatch
    keyed_hash: KeyedHash
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        known: KnownHead | None = None,
        counted: Callable[[int], None] = lambda _: None,
    ) -> ChainReport:
        """Return what was found, also in what is written meanwhile; `counted` is told the numbers it has come to.

        Raises `PortBusy` while another chain is being walked along.
        """
        if self._turn.locked():
            raise PortBusy("audit", "an audit log is being verified already", retry_after=_RETRY_AFTER)
        async with self._turn:
            return await self._verified(workspace, known, counted)

    async def _verified(
        self, workspace: WorkspaceId, known: KnownHead | None, counted: Callable[[int], None]
    ) -> ChainReport:
        await self.batch.flush(workspace)
        begins = workspace != INSTANCE and await self.beginnings.required(workspace)
        check = ChainCheck(workspace, self.keyed_hash.digest, known=known, begins=begins)
        await self._walk(check, workspace, counted)
        while True:
            head = await self.log.head(workspace)
            seen = check.entries
            if head is not None and head.number > check.last:
                # Written since, or removed.
                await self._walk(check, workspace, counted)
            if check.entries == seen:
                return check.end(head, untold=await self.beginnings.untold() if workspace == INSTANCE else ())

    async def _walk(self, check: ChainCheck, workspace: WorkspaceId, counted: Callable[[int], None]) -> None:
        after = check.last if check.entries else None
        async for entry in self.log.entries(workspace, after=after, only=_ALL):
            check.see(entry)
            counted(check.last)
