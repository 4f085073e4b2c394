from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditBatch, AuditFilter, AuditLog
from domain.audit import AuditEntry
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Some entries, newest first."""

    items: tuple[AuditEntry, ...]
    before: int | None
    """The number below which more stand; None where these are the last."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAudit:
    """List who did what to whom, newest first: in a workspace, or what belongs to none.

    What was written and what was refused stands there one by one, and so does each verification and search. Entries
    hold ids and numbers alone, and can neither be changed nor deleted.
    """

    log: AuditLog
    batch: AuditBatch

    async def __call__(self, *, workspace: WorkspaceId, limit: int, before: int | None, only: AuditFilter) -> AuditPage:
        await self.batch.flush(workspace)
        found = await self.log.page(workspace, limit=limit + 1, before=before, only=only)
        shown = tuple(found[:limit])
        return AuditPage(items=shown, before=shown[-1].number if len(found) > limit else None)
