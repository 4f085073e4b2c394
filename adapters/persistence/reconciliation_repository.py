from collections.abc import Sequence
from datetime import datetime
from typing import final

from sqlalchemy import delete, exists, func, select, true, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import DATA_KEYS, RECONCILIATIONS, REFERENCES
from application.ports.cipher import DataKeyId, WrappedKey
from application.ports.repositories import Pending, ReconciliationRepository
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


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
            [
                {"workspace_id": workspace, "reference_id": reference, "space": space, "due_at": due}
                for reference in sorted(set(references))  # one order, so that two bulk notes cannot lock in a circle
            ]
        )
        await self._connection.execute(
            note.on_conflict_do_update(
                constraint=RECONCILIATIONS.primary_key,
                set_={
                    "due_at": func.least(RECONCILIATIONS.c.due_at, note.excluded.due_at),
                    "space": note.excluded.space,
                },
            )
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

    async def lock(self, workspace: WorkspaceId, reference: ReferenceId) -> Pending | None:
        notes, columns = RECONCILIATIONS.c, REFERENCES.c
        this = (columns.workspace_id == workspace) & (columns.id == reference)
        note = (
            select(notes.attempts, notes.space)
            .where(notes.workspace_id == workspace, notes.reference_id == reference)
            .with_for_update(skip_locked=True)
            .cte("note")
        )
        locked = (
            select(columns.gallery_id, columns.person_id, columns.template, DATA_KEYS.c.id, DATA_KEYS.c.wrapped)
            .join(
                DATA_KEYS,
                (DATA_KEYS.c.workspace_id == columns.workspace_id)
                & (DATA_KEYS.c.person_id == columns.enrolled_for)
                & (DATA_KEYS.c.id == columns.data_key_id),
            )
            .where(this)
            .with_for_update(of=REFERENCES, key_share=True, skip_locked=True)
            .cte("locked")
        )
        found = await self._connection.execute(
            select(note, locked, exists().where(this).label("there")).outerjoin_from(note, locked, true())
        )
        row = found.one_or_none()
        if row is None or (row.there and row.id is None):  # no note, or another process holds one of the two
            return None
        gone = row.id is None
        return Pending(
            attempts=row.attempts,
            space=SpaceId(row.space),
            gallery=None if gone else GalleryId(row.gallery_id),
            person=None if gone else PersonId(row.person_id),
            key=None if gone else WrappedKey(id=DataKeyId(row.id), workspace=workspace, wrapped=row.wrapped),
            template=None if gone else row.template,
        )

    async def done(self, workspace: WorkspaceId, reference: ReferenceId) -> None:
        notes, columns = RECONCILIATIONS.c, REFERENCES.c
        forgotten = (
            delete(RECONCILIATIONS)
            .where(notes.workspace_id == workspace, notes.reference_id == reference)
            .cte("forgotten")
        )
        await self._connection.execute(
            update(REFERENCES)
            .where(columns.workspace_id == workspace, columns.id == reference)
            .values(searchable=True)
            .add_cte(forgotten)
        )

    async def postpone(self, workspace: WorkspaceId, reference: ReferenceId, *, due: datetime, error: str) -> None:
        notes = RECONCILIATIONS.c
        await self._connection.execute(
            update(RECONCILIATIONS)
            .where(notes.workspace_id == workspace, notes.reference_id == reference)
            .values(attempts=notes.attempts + 1, due_at=due, error=error)
        )
