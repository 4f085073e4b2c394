from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.repositories import ApiKeyRepository, GalleryRepository
from application.ports.transaction import Transaction
from application.use_cases.keys.issue_key import IssuedKey, IssueKey
from application.use_cases.keys.within import expiry_within, limits_within, require_not_replaced, require_scopes_within
from domain.audit import AuditAction, AuditEvent
from domain.credential import Principal
from domain.errors import InvalidValue
from domain.gallery import GalleryId
from domain.permission import Scope
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApiKey:
    """Make an API key of the workspace, which is shown this once and kept as a keyed hash alone.

    It may do no more than whoever makes it: of their scopes, in their galleries, and not for longer. With `galleries`
    it is for these alone: all others are not there for it. A key that was rotated makes none.
    """

    issue: IssueKey
    keys: ApiKeyRepository
    galleries: GalleryRepository
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        maker: Principal,
        name: str,
        scopes: frozenset[Scope],
        galleries: Sequence[GalleryId | str] | None = None,
        expires_at: datetime | None = None,
    ) -> IssuedKey:
        require_scopes_within(scopes, maker)
        await require_not_replaced(maker, self.keys)
        if galleries is not None and not galleries:
            raise InvalidValue("name a gallery at least, or leave it out for all of them", field="galleries")
        limits = None
        if galleries is not None:
            limits = frozenset([(await self.galleries.get(workspace, one)).id for one in galleries])
        issued = await self.issue(
            workspace=workspace,
            name=name,
            scopes=scopes,
            galleries=limits_within(limits, maker),
            expires_at=expiry_within(expires_at, maker, now=self.clock.now()),
            created_by=maker.user,
        )
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.KEY_CREATED,
                subject=issued.key.id,
                details={"scopes": sorted(scopes), "galleries": None if limits is None else len(limits)},
            )
        )
        await self.transaction.commit()
        return issued
