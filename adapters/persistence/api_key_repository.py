from collections.abc import Sequence
from typing import Any, final

from sqlalchemy import Row, insert, select

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import API_KEYS
from application.ports.repositories import ApiKeyRepository
from domain.credential import ApiKey, ApiKeyId
from domain.gallery import GalleryId
from domain.permission import Scope
from domain.user import UserId
from domain.workspace import WorkspaceId


@final
class SqlApiKeyRepository(ApiKeyRepository):
    """API keys in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def add(self, key: ApiKey, digest: bytes) -> None:
        await self._connection.execute(
            insert(API_KEYS).values(
                workspace_id=key.workspace,
                id=key.id,
                name=key.name,
                prefix=key.prefix,
                digest=digest,
                scopes=sorted(key.scopes),
                galleries=None if key.galleries is None else sorted(key.galleries),
                created_at=key.created_at,
                created_by=key.created_by,
                expires_at=key.expires_at,
                revoked_at=key.revoked_at,
                rotated_from=key.rotated_from,
            )
        )

    async def of_workspace(self, workspace: WorkspaceId) -> Sequence[ApiKey]:
        found = await self._connection.execute(
            select(API_KEYS).where(API_KEYS.c.workspace_id == workspace).order_by(API_KEYS.c.id)
        )
        return [to_api_key(row) for row in found]


def to_api_key(row: Row[Any]) -> ApiKey:
    """Read a row of `api_keys`."""
    return ApiKey(
        id=ApiKeyId(row.id),
        workspace=WorkspaceId(row.workspace_id),
        name=row.name,
        prefix=row.prefix,
        scopes=frozenset(map(Scope, row.scopes)),
        galleries=None if row.galleries is None else frozenset(map(GalleryId, row.galleries)),
        created_at=row.created_at,
        created_by=None if row.created_by is None else UserId(row.created_by),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        rotated_from=None if row.rotated_from is None else ApiKeyId(row.rotated_from),
    )
