from dataclasses import dataclass, replace
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.repositories import ApiKeyRepository
from application.ports.transaction import Transaction
from application.use_cases.keys.within import require_not_replaced, require_scopes_within, require_seen
from domain.audit import AuditAction, AuditEvent
from domain.credential import ApiKeyId, Principal
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeApiKey:
    """End an API key for good, at once, on every node. It stays in the list; revoking it again changes nothing.

    A key that was rotated revokes none but itself.
    """

    keys: ApiKeyRepository
    audit: AuditTrail
    notices: Notices
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, revoker: Principal, key: ApiKeyId) -> None:
        found = require_seen(await self.keys.get(workspace, key, lock=True), revoker)
        require_scopes_within(found.scopes, revoker)
        if key != revoker.key:
            await require_not_replaced(revoker, self.keys)
        if found.revoked_at is not None:
            return
        await self.keys.save(replace(found, revoked_at=self.clock.now()))
        self.audit.note(AuditEvent(workspace=workspace, action=AuditAction.KEY_REVOKED, subject=key))
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
