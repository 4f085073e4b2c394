from dataclasses import dataclass
from typing import final

from application.ports.repositories import ApiKeyRepository
from application.use_cases.keys.within import require_seen
from domain.credential import ApiKey, ApiKeyId, Principal
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetApiKey:
    """Show an API key: what it may do, where, until when, and when it was last used, to a minute."""

    keys: ApiKeyRepository

    async def __call__(self, *, workspace: WorkspaceId, viewer: Principal, key: ApiKeyId) -> ApiKey:
        return require_seen(await self.keys.get(workspace, key), viewer)
