import time
from collections.abc import Mapping
from typing import Any, Final, final

from sqlalchemy import Row, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import translated
from adapters.persistence.tables import GALLERIES, GALLERY_ROTATIONS
from application.ports.index_states import KNOWN_WITHIN
from application.ports.rotations import UNTURNED_YET, Rotation, RotationChanges, Rotations
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

_ROW: Final = GALLERY_ROTATIONS.c


@final
class SqlRotations(Rotations):
    """A row for each gallery that was given another rotation, which few are: all of them are read at once.

    Over AUTOCOMMIT connections, at most once in `KNOWN_WITHIN` seconds.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: Mapping[GalleryId, Rotation] = {}
        self._known_at = float("-inf")

    async def of(self, gallery: GalleryId, *, fresh: bool = False) -> Rotation:
        if fresh or time.monotonic() - self._known_at >= KNOWN_WITHIN:
            asked_at = time.monotonic()
            with translated():
                async with self._engine.connect() as connection:
                    rows = (await connection.execute(select(GALLERY_ROTATIONS))).all()
            self._known, self._known_at = {GalleryId(row.gallery_id): _to_rotation(row) for row in rows}, asked_at
        return self._known.get(gallery, UNTURNED_YET)


@final
class SqlRotationChanges(RotationChanges):
    """Makes the row with a gallery's first change."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def change(self, workspace: WorkspaceId, gallery: GalleryId, before: Rotation, after: Rotation) -> bool:
        there = select(
            GALLERIES.c.workspace_id, GALLERIES.c.id, literal(UNTURNED_YET.writes), literal(UNTURNED_YET.also)
        ).where(GALLERIES.c.workspace_id == workspace, GALLERIES.c.id == gallery)
        await self._connection.execute(
            insert(GALLERY_ROTATIONS)
            .from_select(["workspace_id", "gallery_id", "writes", "also"], there)
            .on_conflict_do_nothing()
        )
        changed = await self._connection.execute(
            update(GALLERY_ROTATIONS)
            .where(
                _ROW.workspace_id == workspace,
                _ROW.gallery_id == gallery,
                _ROW.writes == before.writes,
                _ROW.also.is_not_distinct_from(before.also),
            )
            .values(writes=after.writes, also=after.also)
        )
        return changed.rowcount == 1


def _to_rotation(row: Row[Any]) -> Rotation:
    return Rotation(writes=row.writes, also=row.also)
