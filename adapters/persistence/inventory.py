from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, final

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import translated
from adapters.persistence.gallery_repository import to_gallery
from adapters.persistence.tables import GALLERIES, GALLERY_MOVES, RECONCILIATIONS, REFERENCES
from application.ports.inventory import Inventory
from domain.embedding import SpaceId
from domain.gallery import Gallery, GalleryId


@final
class SqlInventory(Inventory):
    """Reads PostgreSQL over AUTOCOMMIT connections (`Database.reads`)."""

    def __init__(self, reads: AsyncEngine) -> None:
        self._reads = reads

    async def galleries(self, *, after: GalleryId | None, limit: int) -> Sequence[Gallery]:
        listed = select(GALLERIES).order_by(GALLERIES.c.id).limit(limit)
        rows = await self._rows(listed if after is None else listed.where(GALLERIES.c.id > after))
        return [to_gallery(row) for row in rows]

    async def spaces(self) -> Mapping[SpaceId, Sequence[Gallery]]:
        someone = select(REFERENCES.c.id).where(
            REFERENCES.c.workspace_id == GALLERIES.c.workspace_id, REFERENCES.c.gallery_id == GALLERIES.c.id
        )
        moves = GALLERY_MOVES.c
        rows = await self._rows(
            select(*GALLERIES.c, moves.source, moves.target)
            .outerjoin_from(
                GALLERIES,
                GALLERY_MOVES,
                (moves.workspace_id == GALLERIES.c.workspace_id) & (moves.gallery_id == GALLERIES.c.id),
            )
            .where(someone.exists())
            .order_by(GALLERIES.c.id)
        )
        found: defaultdict[SpaceId, list[Gallery]] = defaultdict(list)
        for row in rows:
            for space in {row.space, row.source, row.target} - {None}:
                found[SpaceId(space)].append(to_gallery(row))
        return found

    async def waiting(self) -> int:
        notes = select(func.count()).select_from(RECONCILIATIONS).where(RECONCILIATIONS.c.attempts > 0)
        return int((await self._rows(notes))[0][0])

    async def _rows(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        with translated():
            async with self._reads.connect() as connection:
                rows: Sequence[Row[Any]] = (await connection.execute(statement)).all()
                return rows
