import json
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final, final
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Select, Text, Uuid, cast, func, literal, or_, select, union
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import translated
from adapters.persistence.tables import AUDIT_ENTRIES, AUDIT_HEADS, WORKSPACES
from application.ports.audit import AuditFilter, AuditLog
from domain.audit import BEGINNING, INSTANCE, AuditAction, AuditEntry, AuditHead
from domain.workspace import WorkspaceId

AT_ONCE: Final = 500
"""Entries read with one query: a few milliseconds of the event loop to check them."""

STRETCH: Final = 20_000
"""Entries that one query looks through for what no index leads to."""

_UNREADABLE: Final = datetime.max.replace(tzinfo=UTC)

_ENTRY: Final = AUDIT_ENTRIES.c
_BEFORE: Final = AUDIT_ENTRIES.alias("before")


@final
class SqlAuditLog(AuditLog):
    """Reads entries, each query over an AUTOCOMMIT connection."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(
        self, workspace: WorkspaceId, *, limit: int, before: int | None, only: AuditFilter
    ) -> Sequence[AuditEntry]:
        asked = _entries(workspace, only).order_by(_ENTRY.number.desc()).limit(limit)
        if only.about is None:
            return [to_entry(row) for row in await self._rows(_below(asked, before))]
        # No index has the details, so this walks through the chain, a stretch a query: none holds a connection long.
        found: list[AuditEntry] = []
        while not found:
            stretch = _below(select(_ENTRY.number).where(_ENTRY.workspace_id == workspace), before)
            longest = stretch.order_by(_ENTRY.number.desc()).limit(STRETCH).subquery()
            first: int | None = (await self._rows(select(func.min(longest.c.number))))[0][0]
            if first is None:
                break
            found = [to_entry(row) for row in await self._rows(_below(asked, before).where(_ENTRY.number >= first))]
            before = first
        return found

    async def entries(
        self, workspace: WorkspaceId, *, after: int | None, only: AuditFilter
    ) -> AsyncIterator[AuditEntry]:
        while True:
            # With ties: nobody can have written two entries of one number, and both must be found.
            asked = _entries(workspace, only).order_by(_ENTRY.number).fetch(AT_ONCE, with_ties=True)
            rows = await self._rows(asked if after is None else asked.where(_ENTRY.number > after))
            for row in rows:
                yield to_entry(row)
            if len(rows) < AT_ONCE:
                return
            after = rows[-1].number

    async def head(self, workspace: WorkspaceId) -> AuditHead | None:
        rows = await self._rows(select(AUDIT_HEADS).where(AUDIT_HEADS.c.workspace_id == workspace))
        return AuditHead(number=rows[0].number, mac=rows[0].mac, seal=rows[0].seal) if rows else None

    async def chains(self) -> Sequence[WorkspaceId]:
        made = select(_ENTRY.subject_id).where(
            _ENTRY.workspace_id == INSTANCE,
            _ENTRY.action == AuditAction.WORKSPACE_CREATED,
            _ENTRY.subject_id.is_not(None),
        )
        found = union(
            select(literal(INSTANCE, Uuid).label("workspace_id")),
            select(WORKSPACES.c.id),
            made,
            select(AUDIT_HEADS.c.workspace_id),
            select(_ENTRY.workspace_id),
        ).subquery()
        return [
            WorkspaceId(row.workspace_id)
            for row in await self._rows(select(found.c.workspace_id).order_by(found.c.workspace_id))
        ]

    async def _rows(self, asked: Select[Any]) -> Sequence[Row[Any]]:
        with translated():
            async with self._engine.connect() as connection:
                found: Sequence[Row[Any]] = (await connection.execute(asked)).all()
                return found


def _entries(workspace: WorkspaceId, only: AuditFilter) -> Select[Any]:
    """Select a chain's entries. What somebody may have put there that Python cannot hold is read as text."""
    before = (
        select(_BEFORE.c.mac)
        .where(_BEFORE.c.workspace_id == _ENTRY.workspace_id, _BEFORE.c.number == _ENTRY.number - 1)
        .limit(1)
        .scalar_subquery()
    )
    columns = [one for one in _ENTRY if one.name not in {"at", "details"}]
    return select(
        *columns,
        cast(_ENTRY.at, Text).label("at_text"),
        cast(_ENTRY.details, Text).label("details_text"),
        before.label("before"),
    ).where(_ENTRY.workspace_id == workspace, *_conditions(only))


def _below(asked: Select[Any], before: int | None) -> Select[Any]:
    return asked if before is None else asked.where(_ENTRY.number < before)


def _conditions(only: AuditFilter) -> list[ColumnElement[bool]]:
    equal: list[tuple[ColumnElement[Any], object]] = [
        (_ENTRY.action, only.action),
        (_ENTRY.actor_id, only.actor),
        (_ENTRY.subject_id, only.subject),
        (_ENTRY.gallery_id, only.gallery),
        (_ENTRY.outcome, only.outcome),
    ]
    conditions = [column == value for column, value in equal if value is not None]
    if only.about is not None:
        conditions.append(or_(_ENTRY.subject_id.in_(only.about), _told_of(only.about)))
    if only.since is not None:
        conditions.append(_ENTRY.at >= only.since)
    if only.until is not None:
        conditions.append(_ENTRY.at < only.until)
    return conditions


def _told_of(ids: Collection[UUID]) -> ColumnElement[bool]:
    told = [str(one) for one in ids]
    return or_(
        *(_ENTRY.details[name].astext.in_(told) for name in ("person", "into", "from")),
        *(_ENTRY.details[name].has_any(cast(told, ARRAY(Text))) for name in ("people", "references")),
    )


def to_entry(row: Row[Any]) -> AuditEntry:
    """Make an entry of whatever stands there."""
    return AuditEntry(
        workspace=WorkspaceId(row.workspace_id),
        number=row.number,
        at=_at(row.at_text),
        actor_kind=row.actor_kind,
        actor=row.actor_id,
        network=row.network,
        request=row.request_id,
        action=row.action,
        subject=row.subject_id,
        gallery=row.gallery_id,
        outcome=row.outcome,
        details=_details(row.details_text),
        mac=row.mac,
        before=BEGINNING if row.number == 1 else row.before,
    )


def _at(written: str) -> datetime:
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return _UNREADABLE


def _details(written: str) -> object:
    try:
        return json.loads(written)
    except (ValueError, RecursionError):  # a number of ten thousand digits, say
        return written
