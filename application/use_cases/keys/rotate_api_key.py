from dataclasses import dataclass, replace
from datetime import timedelta
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.repositories import ApiKeyRepository
from application.ports.transaction import Transaction
from application.use_cases.keys.issue_key import IssuedKey, IssueKey
from application.use_cases.keys.within import require_not_replaced, require_scopes_within, require_seen
from domain.audit import AuditAction, AuditEvent
from domain.credential import DEFAULT_OVERLAP, LONGEST_OVERLAP, ApiKeyId, Principal
from domain.errors import ApiKeyRevoked, InvalidValue
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RotateApiKey:
    """Make another key with the same name, scopes, galleries and expiry, which is shown this once.

    The old one is good for an overlap of a day, or as long as `overlap_seconds` says: 0 ends it at once, 30 days are
    the most. It never lasts longer by it. The new one outlives neither the old one nor the key that rotates it. A key
    that was rotated rotates none any more, itself neither.
    """

    keys: ApiKeyRepository
    issue: IssueKey
    audit: AuditTrail
    notices: Notices
    transaction: Transaction
    clock: Clock

    async def __call__(
        self, *, workspace: WorkspaceId, rotator: Principal, key: ApiKeyId, overlap: timedelta = DEFAULT_OVERLAP
    ) -> IssuedKey:
        """Return the new one. Raises `ApiKeyRevoked` where the old one is good no longer."""
        if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
            raise InvalidValue(
                f"an overlap has 0 to {LONGEST_OVERLAP.total_seconds():.0f} seconds", field="overlap_seconds"
            )
        old = require_seen(await self.keys.get(workspace, key, lock=True), rotator)
        require_scopes_within(old.scopes, rotator)
        await require_not_replaced(rotator, self.keys)
        now = self.clock.now()
        if not old.usable(now):
            raise ApiKeyRevoked("this API key was revoked or has expired: make a new one")
        issued = await self.issue(
            workspace=workspace,
            name=old.name,
            scopes=old.scopes,
            galleries=old.galleries,
            expires_at=min(filter(None, (old.expires_at, rotator.ends_at)), default=None),
            created_by=rotator.user,
            rotated_from=old.id,
        )
        ends = now + overlap
        await self.keys.save(replace(old, expires_at=ends if old.expires_at is None else min(ends, old.expires_at)))
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.KEY_ROTATED,
                subject=old.id,
                details={"new": str(issued.key.id), "overlap_seconds": int(overlap.total_seconds())},
            )
        )
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
        return issued
