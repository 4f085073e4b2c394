from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

from sqlalchemy import ColumnElement, Select, func, select

from adapters.persistence.connection import SqlConnection
from adapters.persistence.retention import ERASE_AFTER
from adapters.persistence.tables import GALLERIES, PEOPLE
from application.ports.retentions import Retentions
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId

_IN_GALLERIES = PEOPLE.join(
    GALLERIES, (GALLERIES.c.workspace_id == PEOPLE.c.workspace_id) & (GALLERIES.c.id == PEOPLE.c.gallery_id)
)


@final
class SqlRetentions(Retentions):
    """Computed by PostgreSQL, so that nobody is read who is not due."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def erase_after(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> datetime | None:
        found = await self._connection.execute(_of(select(ERASE_AFTER), workspace, gallery, person))
        return found.scalar()

    async def is_due(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId, now: datetime) -> bool:
        found = await self._connection.execute(_of(select(_is_due(now)), workspace, gallery, person))
        return bool(found.scalar())

    async def due(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, GalleryId, PersonId]]:
        erase_after = ERASE_AFTER.label("erase_after")
        found = await self._connection.execute(
            select(PEOPLE.c.workspace_id, PEOPLE.c.gallery_id, PEOPLE.c.id, erase_after)
            .select_from(_IN_GALLERIES)
            .where(PEOPLE.c.merged_into.is_(None), _is_due(now))
            .order_by(erase_after, PEOPLE.c.id)
            .limit(limit)
        )
        return [(WorkspaceId(row.workspace_id), GalleryId(row.gallery_id), PersonId(row.id)) for row in found]


def _of(wanted: Select[Any], workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> Select[Any]:
    return wanted.select_from(_IN_GALLERIES).where(
        PEOPLE.c.workspace_id == workspace,
        PEOPLE.c.gallery_id == gallery,
        PEOPLE.c.id == person,
        PEOPLE.c.merged_into.is_(None),
    )


def _is_due(now: datetime) -> ColumnElement[bool]:
    # Nothing is more final than an erasure: it takes two clocks that agree.
    return func.least(now, func.now()) >= ERASE_AFTER
