from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select

from application.ports.repositories import Page

T = TypeVar("T")


def stretch(statement: Select[Any], by: ColumnElement[UUID], *, limit: int, after: UUID | None) -> Select[Any]:
    """Limit a list to what follows `after`, and to one more than `limit`: the one that says that more follows."""
    behind = statement if after is None else statement.where(by > after)
    return behind.order_by(by).limit(limit + 1)


def page(rows: Sequence[Row[Any]], to_domain: Callable[[Row[Any]], T], *, limit: int) -> Page[T]:
    """Make a page of what `stretch` found."""
    shown = rows[:limit]
    return Page(
        items=tuple(to_domain(row) for row in shown),
        next_after=shown[-1].id if len(rows) > limit else None,
    )
