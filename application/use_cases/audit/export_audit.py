import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditBatch, AuditFilter, AuditLog, AuditTrail
from application.ports.transaction import Transaction
from domain.audit import AuditAction, AuditEntry, AuditEvent, fields_of
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportAudit:
    """Return a chain's entries as JSON lines, oldest first; that it was exported is the last of them.

    Each line has the `mac` of its entry and, as `before`, that of the one before it: with the key, each can be checked
    by itself, also among those that a filter left.
    """

    log: AuditLog
    batch: AuditBatch
    audit: AuditTrail
    transaction: Transaction

    async def __call__(self, *, workspace: WorkspaceId, only: AuditFilter) -> AsyncIterator[bytes]:
        """Return the lines. They are read as they are taken, and no transaction is held meanwhile."""
        await self.batch.flush(workspace)
        self.audit.note(
            AuditEvent(workspace=workspace, action=AuditAction.AUDIT_EXPORTED, details={"whole": only == AuditFilter()})
        )
        await self.transaction.commit()
        head = await self.log.head(workspace)
        return self._lines(workspace, only, 0 if head is None else head.number)

    async def _lines(self, workspace: WorkspaceId, only: AuditFilter, last: int) -> AsyncIterator[bytes]:
        async for entry in self.log.entries(workspace, after=None, only=only):
            if entry.number > last:
                return
            yield line_of(entry)


def line_of(entry: AuditEntry) -> bytes:
    """Return an entry as a line: without `mac` it is the very text that this is the keyed hash of."""
    fields = {**fields_of(entry, entry.before), "mac": entry.mac.hex()}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
