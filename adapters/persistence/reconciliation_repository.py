from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, final

from sqlalchemy import ARRAY, Row, Text, Uuid, any_, bindparam, delete, func, literal, select, union, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import CollectionAggregate

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import (
    DATA_KEYS,
    GALLERIES,
    GALLERY_MOVES,
    RECONCILIATIONS,
    REFERENCES,
    SPARE_TEMPLATES,
)
from application.ports.cipher import DataKeyId, WrappedKey
from application.ports.repositories import Pending, ReconciliationRepository
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId

_MOVES = GALLERY_MOVES.c
_OF_WORKSPACE = _MOVES.workspace_id == bindparam("workspace_id", type_=Uuid)
_MOVED_BETWEEN = func.array(
    union(select(_MOVES.source).where(_OF_WORKSPACE), select(_MOVES.target).where(_OF_WORKSPACE)).scalar_subquery(),
    type_=ARRAY(Text),
)
"""The spaces that galleries of a workspace move to or from."""


@final
class SqlReconciliationRepository(ReconciliationRepository):
    """Notes in PostgreSQL.

    Locks: writers lock references, then notes, or notes, then references. `lock` waits for neither, so it can stand
    in nobody's way in a circle.
    """

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def note(
        self, workspace: WorkspaceId, references: Sequence[ReferenceId], *, space: SpaceId, due: datetime
    ) -> None:
        if not references:
            return
        note = insert(RECONCILIATIONS).values(
            workspace_id=bindparam("workspace_id"),
            reference_id=bindparam("reference_id"),
            space=bindparam("space"),
            due_at=bindparam("due_at"),
            further_spaces=_MOVED_BETWEEN,
        )
        await self._connection.execute(
            note.on_conflict_do_update(
                constraint=RECONCILIATIONS.primary_key,
                set_={
                    "due_at": func.least(RECONCILIATIONS.c.due_at, note.excluded.due_at),
                    "space": note.excluded.space,
                    "further_spaces": note.excluded.further_spaces,
                },
            ),
            [
                {"workspace_id": workspace, "reference_id": reference, "space": space, "due_at": due}
                for reference in sorted(set(references))  # one order, so that two bulk notes cannot lock in a circle
            ],
        )

    async def due(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, ReferenceId]]:
        notes = RECONCILIATIONS.c
        found = await self._connection.execute(
            select(notes.workspace_id, notes.reference_id)
            .where(notes.due_at <= now)
            .order_by(notes.due_at, notes.reference_id)
            .limit(limit)
        )
        return [(WorkspaceId(row.workspace_id), ReferenceId(row.reference_id)) for row in found]

    async def lock(
        self, workspace: WorkspaceId, references: Sequence[ReferenceId]
    ) -> Mapping[ReferenceId, Pending | None]:
        # Two statements: what was committed before a note was locked must be seen when its reference is read, and a
        # statement sees what was committed before it began.
        notes = await self._lock_notes(workspace, references)
        ours = [reference for reference, note in notes.items() if note.attempts is not None]
        rows = await self._lock_references(workspace, ours) if ours else {}
        pending: dict[ReferenceId, Pending | None] = dict.fromkeys(notes)
        for reference in ours:
            pending[reference] = _to_pending(workspace, notes[reference], rows.get(reference, ()))
        return pending

    async def done(self, workspace: WorkspaceId, references: Sequence[ReferenceId]) -> None:
        notes, columns = RECONCILIATIONS.c, REFERENCES.c
        forgotten = (
            delete(RECONCILIATIONS)
            .where(notes.workspace_id == workspace, notes.reference_id == _among(references))
            .cte("forgotten")
        )
        await self._connection.execute(
            update(REFERENCES)
            .where(columns.workspace_id == workspace, columns.id == _among(references), columns.searchable.is_(False))
            .values(searchable=True)
            .add_cte(forgotten)
        )

    async def postpone(
        self, workspace: WorkspaceId, reference: ReferenceId, *, due: datetime, error: str, searchable: bool
    ) -> None:
        notes, columns = RECONCILIATIONS.c, REFERENCES.c
        if searchable:
            await self._connection.execute(
                update(REFERENCES)
                .where(columns.workspace_id == workspace, columns.id == reference, columns.searchable.is_(False))
                .values(searchable=True)
            )
        await self._connection.execute(
            update(RECONCILIATIONS)
            .where(notes.workspace_id == workspace, notes.reference_id == reference)
            .values(attempts=notes.attempts + 1, due_at=due, error=error)
        )

    async def _lock_notes(
        self, workspace: WorkspaceId, references: Sequence[ReferenceId]
    ) -> Mapping[ReferenceId, Row[Any]]:
        """All notes; those that another transaction holds without a number of attempts."""
        notes = RECONCILIATIONS.c
        these = (notes.workspace_id == workspace) & (notes.reference_id == _among(references))
        locked = (
            select(notes.reference_id, notes.attempts, notes.space, notes.further_spaces)
            .where(these)
            .with_for_update(skip_locked=True)
            .cte("locked")
        )
        found = await self._connection.execute(
            select(notes.reference_id, locked.c.attempts, locked.c.space, locked.c.further_spaces)
            .outerjoin_from(RECONCILIATIONS, locked, locked.c.reference_id == notes.reference_id)
            .where(these)
        )
        return {ReferenceId(row.reference_id): row for row in found}

    async def _lock_references(
        self, workspace: WorkspaceId, references: Sequence[ReferenceId]
    ) -> Mapping[ReferenceId, Sequence[Row[Any]]]:
        """All that are there, a row for each spare template; those that another transaction holds without a key."""
        columns = REFERENCES.c
        these = (columns.workspace_id == workspace) & (columns.id == _among(references))
        locked = (
            select(columns.id, columns.gallery_id, columns.person_id, columns.space, columns.template)
            .add_columns(DATA_KEYS.c.wrapped, DATA_KEYS.c.id.label("key_id"))
            .join(
                DATA_KEYS,
                (DATA_KEYS.c.workspace_id == columns.workspace_id)
                & (DATA_KEYS.c.person_id == columns.enrolled_for)
                & (DATA_KEYS.c.id == columns.data_key_id),
            )
            .where(these)
            .with_for_update(of=REFERENCES, key_share=True, skip_locked=True)
            .cte("locked")
        )
        read = [column for column in locked.c if column.name != "id"]
        spare = SPARE_TEMPLATES.c
        found = await self._connection.execute(
            select(columns.id, *read)
            .add_columns(GALLERIES.c.space.label("gallery_space"), _MOVES.source, _MOVES.target)
            .add_columns(spare.space.label("spare_space"), spare.template.label("spare_template"))
            .select_from(
                REFERENCES.join(
                    GALLERIES,
                    (GALLERIES.c.workspace_id == columns.workspace_id) & (GALLERIES.c.id == columns.gallery_id),
                )
                .outerjoin(
                    GALLERY_MOVES,
                    (_MOVES.workspace_id == columns.workspace_id) & (_MOVES.gallery_id == columns.gallery_id),
                )
                .outerjoin(locked, locked.c.id == columns.id)
                .outerjoin(
                    SPARE_TEMPLATES,
                    (spare.workspace_id == columns.workspace_id)
                    & (spare.reference_id == columns.id)
                    & spare.template.is_not(None),
                )
            )
            .where(these)
        )
        rows: dict[ReferenceId, list[Row[Any]]] = {}
        for row in found:
            rows.setdefault(ReferenceId(row.id), []).append(row)
        return rows


def _among(references: Sequence[ReferenceId]) -> CollectionAggregate[Any]:
    # One parameter, whatever their number: PostgreSQL takes 32,767.
    return any_(literal(list(references), ARRAY(Uuid)))


def _to_pending(workspace: WorkspaceId, note: Row[Any], rows: Sequence[Row[Any]]) -> Pending | None:
    if not rows:
        return Pending(
            attempts=note.attempts,
            space=SpaceId(note.space),
            spaces=frozenset(map(SpaceId, (note.space, *note.further_spaces))),
            gallery=None,
            person=None,
            key=None,
            templates={},
        )
    one = rows[0]
    if one.key_id is None:
        return None
    spaces = frozenset(map(SpaceId, {one.gallery_space, one.source, one.target} - {None}))
    kept = {one.space: one.template, **{row.spare_space: row.spare_template for row in rows}}
    return Pending(
        attempts=note.attempts,
        space=SpaceId(one.gallery_space),
        spaces=spaces,
        gallery=GalleryId(one.gallery_id),
        person=PersonId(one.person_id),
        key=WrappedKey(id=DataKeyId(one.key_id), workspace=workspace, wrapped=one.wrapped),
        templates={space: kept[space] for space in spaces if space in kept},
    )
