import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, final

from sqlalchemy import (
    ColumnElement,
    Integer,
    LargeBinary,
    Row,
    Table,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import BIT
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import translated
from adapters.persistence.tables import KEY_RING, METADATA
from application.ports.cipher import DataKeyId, WrappedKey
from application.ports.wrapped_keys import WrappedKeys
from domain.audit import INSTANCE
from domain.errors import CannotOpen
from domain.workspace import WorkspaceId

TABLES: Final = tuple(table for table in METADATA.sorted_tables if "wrapped" in table.c and table is not KEY_RING)
"""Every table with a wrapped data key, whoever adds one: the key's id is `data_key_id`, or the row's own `id`."""

_PAGE: Final = 500
_LOOK: Final = 0.2
"""Seconds between two looks at who writes."""

# Whoever writes in a table has this lock on it until the transaction ends.
_WRITERS: Final = text(
    "SELECT virtualtransaction FROM pg_locks WHERE mode = 'RowExclusiveLock' AND locktype = 'relation'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation IN (SELECT oid FROM pg_class WHERE relname IN :tables)"
).bindparams(bindparam("tables", [table.name for table in TABLES], expanding=True))
_NUMBERED: Final = b"\x02"


@final
class SqlWrappedKeys(WrappedKeys):
    """Those of all tables, in transactions of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def counts(self) -> Mapping[int, int]:
        counted: Counter[int] = Counter()
        for table in TABLES:
            number = _number(table).label("number")
            found = await self._rows(
                select(number, func.count().label("rows")).where(table.c.wrapped.is_not(None)).group_by(number)
            )
            for row in found:
                counted[row.number] += row.rows
        return counted

    async def rewrap(self, rewrapped: Callable[[WrappedKey], WrappedKey], *, number: int) -> AsyncIterator[int]:
        for table in TABLES:
            places = list(table.primary_key.columns)
            last: Row[Any] | None = None
            while True:
                page = await self._rows(_page(table, places, number, last))
                if not page:
                    break
                changed = [one for row in page if (one := _changed(table, places, row, rewrapped)) is not None]
                yield await self._replace(table, places, changed)
                last = page[-1]

    async def written(self) -> None:
        writing = await self._writing()
        while writing:
            await asyncio.sleep(_LOOK)
            writing &= await self._writing()

    async def _writing(self) -> frozenset[str]:
        """The transactions that have written, or wait to write, in any of the tables."""
        return frozenset(row.virtualtransaction for row in await self._rows(_WRITERS))

    async def _replace(
        self, table: Table, places: Sequence[ColumnElement[Any]], changed: Sequence[Mapping[str, object]]
    ) -> int:
        if not changed:
            return 0
        here = [place == bindparam(f"place_{index}", type_=place.type) for index, place in enumerate(places)]
        statement = (
            update(table)
            .where(*here, table.c.wrapped == bindparam("before", type_=LargeBinary))
            .values(wrapped=bindparam("after", type_=LargeBinary))
        )
        with translated():
            async with self._engine.begin() as connection:
                await connection.execute(statement, list(changed))
        return len(changed)

    async def _rows(self, statement: Any) -> Sequence[Row[Any]]:  # noqa: ANN401 - any select
        with translated():
            async with self._engine.begin() as connection:
                return (await connection.execute(statement)).all()


def _number(table: Table) -> ColumnElement[int]:
    """The number of the wrapping key, as the head of a wrapped key has it."""
    number = cast(cast(func.concat("x", func.encode(func.substr(table.c.wrapped, 2, 4), "hex")), BIT(32)), Integer)
    return case((func.substr(table.c.wrapped, 1, 1) == literal(_NUMBERED, LargeBinary), number), else_=literal(0))


def _page(table: Table, places: Sequence[ColumnElement[Any]], number: int, last: Row[Any] | None) -> Any:  # noqa: ANN401 - a select
    found = select(*places, *_key_columns(table)).where(table.c.wrapped.is_not(None), _number(table) != number)
    if last is not None:
        behind = [literal(value, place.type) for place, value in zip(places, last, strict=False)]
        found = found.where(tuple_(*places) > tuple_(*behind))
    return found.order_by(*places).limit(_PAGE)


def _key_columns(table: Table) -> Sequence[ColumnElement[Any]]:
    key = table.c.data_key_id if "data_key_id" in table.c else table.c.id
    columns = [key.label("its_key"), table.c.wrapped.label("its_wrapped")]
    return [*columns, table.c.workspace_id.label("its_workspace")] if "workspace_id" in table.c else columns


def _changed(
    table: Table,
    places: Sequence[ColumnElement[Any]],
    row: Row[Any],
    rewrapped: Callable[[WrappedKey], WrappedKey],
) -> Mapping[str, object] | None:
    workspace = WorkspaceId(row.its_workspace) if "workspace_id" in table.c else INSTANCE
    key = WrappedKey(id=DataKeyId(row.its_key), workspace=workspace, wrapped=row.its_wrapped)
    with suppress(CannotOpen):
        after = rewrapped(key).wrapped
        return {
            **{f"place_{index}": value for index, value in enumerate(row[: len(places)])},
            "before": key.wrapped,
            "after": after,
        }
    return None
