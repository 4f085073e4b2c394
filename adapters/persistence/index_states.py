import time
from datetime import datetime
from typing import Any, Final, final

from sqlalchemy import Row, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import translated
from adapters.persistence.tables import INDEX_STATE, REFERENCES
from application.ports.index_states import KNOWN_WITHIN, IndexName, IndexState, IndexStates

_ROW: Final = INDEX_STATE.c


@final
class SqlIndexStates(IndexStates):
    """One row, read over AUTOCOMMIT connections at most once in `KNOWN_WITHIN` seconds."""

    def __init__(self, reads: AsyncEngine) -> None:
        self._reads = reads
        self._known: IndexState | None = None
        self._known_at = 0.0

    async def begin(self, serving: IndexName, *, now: datetime) -> IndexState:
        """Return the state; `serving` answers from now on where no index ever did, or nobody is enrolled.

        An installation without references can be given any index: there is nothing to be moved.
        """
        row = {"serving": serving, "beside": None, "filled": False, "changed_at": now}
        someone = select(REFERENCES.c.id).limit(1).exists()
        with translated():
            async with self._reads.connect() as connection:
                await connection.execute(
                    insert(INDEX_STATE)
                    .values(row)
                    .on_conflict_do_update(
                        constraint=INDEX_STATE.primary_key,
                        set_=row,
                        where=(_ROW.serving != serving) & _ROW.beside.is_(None) & ~someone,
                    )
                )
        return await self._read()

    async def now(self) -> IndexState:
        if self._known is None or time.monotonic() - self._known_at >= KNOWN_WITHIN:
            return await self._read()
        return self._known

    async def change(self, before: IndexState, after: IndexState) -> bool:
        with translated():
            async with self._reads.connect() as connection:
                changed = await connection.execute(
                    update(INDEX_STATE)
                    .where(
                        _ROW.serving == before.serving,
                        _ROW.beside.is_not_distinct_from(literal(before.beside)),
                        _ROW.filled == before.filled,
                        _ROW.changed_at == before.changed_at,
                    )
                    .values(
                        serving=after.serving, beside=after.beside, filled=after.filled, changed_at=after.changed_at
                    )
                )
        self._known = None
        return changed.rowcount == 1

    async def _read(self) -> IndexState:
        asked_at = time.monotonic()
        with translated():
            async with self._reads.connect() as connection:
                row = (await connection.execute(select(INDEX_STATE))).one()
        self._known, self._known_at = _to_state(row), asked_at
        return self._known


def _to_state(row: Row[Any]) -> IndexState:
    return IndexState(
        serving=IndexName(row.serving),
        beside=None if row.beside is None else IndexName(row.beside),
        filled=row.filled,
        changed_at=row.changed_at,
    )
