import time
from typing import Any, Final, final

from sqlalchemy import Row, Update, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import translated
from adapters.persistence.schema_ping import require_current
from adapters.persistence.tables import INDEX_STATE, REFERENCES
from application.ports.clock import Clock
from application.ports.index_states import KNOWN_WITHIN, IndexName, IndexState, IndexStateChanges, IndexStates, Mark
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId

_ROW: Final = INDEX_STATE.c


@final
class SqlIndexStates(IndexStates):
    """One row, read over AUTOCOMMIT connections at most once in `KNOWN_WITHIN` seconds.

    The first who asks makes it: `first` answers from then on.
    """

    def __init__(self, engine: AsyncEngine, first: IndexName, *, clock: Clock) -> None:
        self._engine = engine
        self._first = first
        self._clock = clock
        self._begun = False
        self._known: IndexState | None = None
        self._known_at = 0.0

    async def now(self, *, fresh: bool = False) -> IndexState:
        if fresh or self._known is None or time.monotonic() - self._known_at >= KNOWN_WITHIN:
            return await self._read()
        return self._known

    async def mark(self) -> Mark | None:
        return _to_mark(await self._row())

    async def set_mark(self, state: IndexState, mark: Mark) -> bool:
        marked = _updated(
            state,
            mark_gallery=mark.gallery,
            mark_reference=mark.reference,
            mark_references=mark.references,
        )
        with translated():
            async with self._engine.connect() as connection:
                return (await connection.execute(marked)).rowcount == 1

    def forget(self) -> None:
        """Read it anew the next time."""
        self._known = None

    async def adopt(self) -> IndexState:
        """Let `first` answer where nobody is enrolled: there is nothing to be moved. Return what holds then.

        For services that start, not for commands, which may have been given other settings than the services.
        """
        if (await self._read()).serving != self._first:
            someone = select(REFERENCES.c.id).limit(1).exists()
            with translated():
                async with self._engine.connect() as connection:
                    await connection.execute(
                        update(INDEX_STATE)
                        .where(_ROW.beside.is_(None), ~someone)
                        .values(serving=self._first, filled=False, changed_at=self._clock.now())
                    )
        return await self._read()

    async def _begin(self) -> None:
        await require_current(self._engine)
        row = {"serving": self._first, "filled": False, "changed_at": self._clock.now()}
        with translated():
            async with self._engine.connect() as connection:
                await connection.execute(insert(INDEX_STATE).values(row).on_conflict_do_nothing())
        self._begun = True

    async def _read(self) -> IndexState:
        if not self._begun:
            await self._begin()
        asked_at = time.monotonic()
        self._known, self._known_at = _to_state(await self._row()), asked_at
        return self._known

    async def _row(self) -> Row[Any]:
        with translated():
            async with self._engine.connect() as connection:
                return (await connection.execute(select(INDEX_STATE))).one()


@final
class SqlIndexStateChanges(IndexStateChanges):
    """Changes the row that `SqlIndexStates` has made."""

    def __init__(self, connection: SqlConnection, states: SqlIndexStates) -> None:
        self._connection = connection
        self._states = states

    async def change(self, before: IndexState, after: IndexState) -> bool:
        changed = await self._connection.execute(
            _updated(
                before,
                serving=after.serving,
                beside=after.beside,
                filled=after.filled,
                changed_at=after.changed_at,
                mark_gallery=None,
                mark_reference=None,
                mark_references=None,
            )
        )
        self._connection.after_commit(self._states.forget)
        return changed.rowcount == 1


def _updated(state: IndexState, **values: object) -> Update:
    """Write where `state` holds."""
    return (
        update(INDEX_STATE)
        .where(
            _ROW.serving == state.serving,
            _ROW.beside.is_not_distinct_from(literal(state.beside)),
            _ROW.filled == state.filled,
            _ROW.changed_at == state.changed_at,
        )
        .values(**values)
    )


def _to_state(row: Row[Any]) -> IndexState:
    return IndexState(
        serving=IndexName(row.serving),
        beside=None if row.beside is None else IndexName(row.beside),
        filled=row.filled,
        changed_at=row.changed_at,
    )


def _to_mark(row: Row[Any]) -> Mark | None:
    if row.mark_gallery is None:
        return None
    return Mark(
        gallery=GalleryId(row.mark_gallery),
        reference=ReferenceId(row.mark_reference),
        references=row.mark_references,
    )
