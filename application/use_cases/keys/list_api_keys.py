from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.repositories import ApiKeyRepository, Page
from domain.credential import ApiKey, Principal
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListApiKeys:
    """List the workspace's API keys, oldest first, those too that are revoked or have expired.

    A key is recognised by the first characters of its secret; of the rest nothing is shown. A key that is limited to
    galleries sees those alone that are limited to some of these.
    """

    keys: ApiKeyRepository

    async def __call__(
        self, *, workspace: WorkspaceId, viewer: Principal, limit: int, after: UUID | None
    ) -> Page[ApiKey]:
        return await self.keys.page(workspace, limit=limit, after=after, within=viewer.galleries)
