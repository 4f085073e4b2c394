from typing import Any, final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, exists, insert, literal, select, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import page, stretch
from adapters.persistence.tables import API_KEYS
from application.ports.repositories import ApiKeyRepository, Page
from domain.credential import ApiKey, ApiKeyId
from domain.errors import ApiKeyNotFound
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

    async def get(self, workspace: WorkspaceId, key: ApiKeyId, *, lock: bool = False) -> ApiKey:
        wanted = select(API_KEYS).where(_is(workspace, key))
        row = (await self._connection.execute(wanted.with_for_update() if lock else wanted)).one_or_none()
        if row is None:
            raise ApiKeyNotFound("no such API key")
        return to_api_key(row)

    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: UUID | None, within: frozenset[GalleryId] | None = None
    ) -> Page[ApiKey]:
        listed = select(API_KEYS).where(API_KEYS.c.workspace_id == workspace)
        if within is not None:
            limits = literal(sorted(within), API_KEYS.c.galleries.type)
            listed = listed.where(API_KEYS.c.galleries.op("<@", is_comparison=True)(limits))
        found = await self._connection.execute(stretch(listed, API_KEYS.c.id, limit=limit, after=after))
        return page(found.all(), to_api_key, limit=limit)

    async def is_replaced(self, key: ApiKey) -> bool:
        after = exists().where(API_KEYS.c.workspace_id == key.workspace, API_KEYS.c.rotated_from == key.id)
        return bool((await self._connection.execute(select(after))).scalar_one())

    async def save(self, key: ApiKey) -> None:
        saved = await self._connection.execute(
            update(API_KEYS)
            .where(_is(key.workspace, key.id))
            .values(expires_at=key.expires_at, revoked_at=key.revoked_at)
        )
        if not saved.rowcount:
            raise ApiKeyNotFound("no such API key")


def _is(workspace: WorkspaceId, key: ApiKeyId) -> ColumnElement[bool]:
    return (API_KEYS.c.workspace_id == workspace) & (API_KEYS.c.id == key)


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
