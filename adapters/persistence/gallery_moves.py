from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, final
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Uuid, any_, delete, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.personal import IS_OWN_KEY, OWN_KEY, OWN_KEY_COLUMNS, PersonalFields, own_key
from adapters.persistence.tables import DATA_KEYS, GALLERY_MOVES, PEOPLE, RECONCILIATIONS, REFERENCES, SPARE_TEMPLATES
from application.ports.cipher import Cipher, DataKeyId, WrappedKey
from application.ports.gallery_moves import (
    Followed,
    GalleryMove,
    GalleryMoves,
    Lagging,
    LeftBehind,
    Noted,
    SpareTemplates,
    Standing,
)
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import Page
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.face import Box
from domain.gallery import GalleryId
from domain.job import JobId
from domain.person import PersonId
from domain.workspace import WorkspaceId

_BEFORE_ALL: Final = UUID(int=0)

_SPARE: Final = SPARE_TEMPLATES.c
_COLUMNS: Final = REFERENCES.c
_SPARE_OF_REFERENCE: Final = (_SPARE.workspace_id == _COLUMNS.workspace_id) & (_SPARE.reference_id == _COLUMNS.id)
_NOTE: Final = RECONCILIATIONS.c
_NOTE_OF_REFERENCE: Final = (_NOTE.workspace_id == _COLUMNS.workspace_id) & (_NOTE.reference_id == _COLUMNS.id)


@final
class SqlGalleryMoves(GalleryMoves):
    """Moves in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def get(self, workspace: WorkspaceId, gallery: GalleryId, *, lock: bool = False) -> GalleryMove | None:
        wanted = select(GALLERY_MOVES).where(_move(workspace, gallery))
        row = (await self._connection.execute(wanted.with_for_update() if lock else wanted)).one_or_none()
        return None if row is None else _to_move(row)

    async def save(self, move: GalleryMove) -> None:
        kept = {
            "source": move.source,
            "target": move.target,
            "job_id": move.job,
            "report": move.report,
            "switched_at": move.switched_at,
            "asked_at": move.asked_at,
        }
        await self._connection.execute(
            insert(GALLERY_MOVES)
            .values(workspace_id=move.workspace, gallery_id=move.gallery, **kept)
            .on_conflict_do_update(constraint=GALLERY_MOVES.primary_key, set_=kept)
        )

    async def remove(self, workspace: WorkspaceId, gallery: GalleryId) -> None:
        await self._connection.execute(delete(GALLERY_MOVES).where(_move(workspace, gallery)))

    async def sample(self, workspace: WorkspaceId, gallery: GalleryId, *, size: int) -> Sequence[ReferenceId]:
        numbered = (
            select(_COLUMNS.id)
            .add_columns((func.row_number().over(order_by=_COLUMNS.id) - 1).label("place"))
            .add_columns(func.count().over().label("number"))
            .where(_of(workspace, gallery))
            .cte("numbered")
        )
        step = (numbered.c.number + size - 1) // size
        found = await self._connection.execute(
            select(numbered.c.id).where(numbered.c.place % step == 0).order_by(numbered.c.id)
        )
        return [ReferenceId(reference) for reference in found.scalars()]

    async def noted(
        self, workspace: WorkspaceId, gallery: GalleryId, *, now: datetime, after: ReferenceId | None, limit: int
    ) -> Sequence[Noted]:
        found = await self._connection.execute(
            select(_COLUMNS.id, _in_hand(now).label("in_hand"))
            .join(RECONCILIATIONS, _NOTE_OF_REFERENCE)
            .where(_of(workspace, gallery), _COLUMNS.id > (after or _BEFORE_ALL))
            .order_by(_COLUMNS.id)
            .limit(limit)
        )
        return [Noted(ReferenceId(row.id), row.in_hand) for row in found]


@final
class SqlSpareTemplates(SpareTemplates):
    """Spare templates in PostgreSQL."""

    def __init__(self, connection: SqlConnection, cipher: Cipher, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._personal = PersonalFields(cipher, keyed_hash)

    async def lagging(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        space: SpaceId,
        *,
        now: datetime,
        after: ReferenceId | None,
        limit: int,
        refused: bool = False,
    ) -> Sequence[Lagging]:
        looked_at = exists().where(_SPARE_OF_REFERENCE, _SPARE.space == space)
        if refused:
            looked_at = looked_at.where(_SPARE.refusal.is_(None))
        found = await self._connection.execute(
            select(_COLUMNS.id, _COLUMNS.box, _COLUMNS.image_key, DATA_KEYS.c.wrapped)
            .add_columns(DATA_KEYS.c.id.label("key_id"))
            .join(
                DATA_KEYS,
                (DATA_KEYS.c.workspace_id == _COLUMNS.workspace_id)
                & (DATA_KEYS.c.person_id == _COLUMNS.enrolled_for)
                & (DATA_KEYS.c.id == _COLUMNS.data_key_id),
            )
            .where(
                _of(workspace, gallery),
                _COLUMNS.id > (after or _BEFORE_ALL),
                _COLUMNS.space != space,
                ~looked_at,
                ~exists().where(_NOTE_OF_REFERENCE, _in_hand(now)),
            )
            .order_by(_COLUMNS.id)
            .limit(limit)
        )
        return [
            Lagging(
                reference=ReferenceId(row.id),
                key=WrappedKey(id=DataKeyId(row.key_id), workspace=workspace, wrapped=row.wrapped),
                box=Box(*row.box),
                has_image=row.image_key is not None,
            )
            for row in found
        ]

    async def add(
        self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId, followed: Sequence[Followed]
    ) -> Sequence[ReferenceId]:
        there = await self._connection.execute(
            select(_COLUMNS.id)
            .where(_of(workspace, gallery), _COLUMNS.id == _among([one.reference for one in followed]))
            .order_by(_COLUMNS.id)
            .with_for_update(read=True, key_share=True)
        )
        kept = {ReferenceId(reference) for reference in there.scalars()}
        rows = [
            {
                "workspace_id": workspace,
                "reference_id": one.reference,
                "space": space,
                "gallery_id": gallery,
                "template": one.template,
                "refusal": one.refusal,
            }
            for one in followed
            if one.reference in kept
        ]
        if rows:
            made = insert(SPARE_TEMPLATES)
            await self._connection.execute(
                made.on_conflict_do_update(
                    constraint=SPARE_TEMPLATES.primary_key,
                    set_={"template": made.excluded.template, "refusal": made.excluded.refusal},
                ),
                rows,
            )
        return sorted(kept)

    async def standing(self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId) -> Standing:
        counted = await self._connection.execute(
            select(
                func.count().label("references"), func.count().filter(_COLUMNS.space == space).label("enrolled_there")
            ).where(_of(workspace, gallery))
        )
        row = counted.one()
        followed = await self._connection.execute(
            select(_SPARE.refusal, func.count().label("number"))
            .where(_spare_of(workspace, gallery), _SPARE.space == space)
            .group_by(_SPARE.refusal)
        )
        by_refusal: dict[str | None, int] = {one.refusal: one.number for one in followed}
        return Standing(
            references=row.references,
            followed=row.enrolled_there + by_refusal.pop(None, 0),
            left_behind={refusal: number for refusal, number in sorted(by_refusal.items()) if refusal is not None},
        )

    async def left_behind(
        self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId, *, after: ReferenceId | None, limit: int
    ) -> Page[LeftBehind]:
        found = await self._connection.execute(
            select(_SPARE.reference_id, _SPARE.refusal, PEOPLE.c.id.label("person_id"), PEOPLE.c.external_id)
            .add_columns(*OWN_KEY_COLUMNS)
            .select_from(SPARE_TEMPLATES)
            .join(REFERENCES, _SPARE_OF_REFERENCE)
            .join(PEOPLE, (PEOPLE.c.workspace_id == _COLUMNS.workspace_id) & (PEOPLE.c.id == _COLUMNS.person_id))
            .join(OWN_KEY, IS_OWN_KEY)
            .where(
                _spare_of(workspace, gallery),
                _SPARE.space == space,
                _SPARE.refusal.is_not(None),
                _SPARE.reference_id > (after or _BEFORE_ALL),
            )
            .order_by(_SPARE.reference_id)
            .limit(limit + 1)
        )
        rows = found.all()
        items = tuple(
            LeftBehind(
                reference=ReferenceId(row.reference_id),
                person=PersonId(row.person_id),
                external_id=self._personal.external_id(
                    row.external_id, person=PersonId(row.person_id), key=own_key(workspace, row)
                ),
                refusal=row.refusal,
            )
            for row in rows[:limit]
        )
        return Page(items=items, next_after=items[-1].reference if len(rows) > limit else None)

    async def settle(
        self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId, *, limit: int
    ) -> Sequence[ReferenceId]:
        # What is left of a reference that has settled: nothing, or why it could not follow.
        unsettled = select(_SPARE.reference_id).where(
            _spare_of(workspace, gallery), (_SPARE.space != space) | _SPARE.refusal.is_(None)
        )
        locked = await self._connection.execute(
            select(_COLUMNS.id)
            .where(_of(workspace, gallery), _COLUMNS.id.in_(unsettled))
            .order_by(_COLUMNS.id)
            .limit(limit)
            .with_for_update(key_share=True)
        )
        references = [ReferenceId(reference) for reference in locked.scalars()]
        these = _SPARE.reference_id == _among(references)
        await self._connection.execute(
            update(REFERENCES)
            .where(
                _of(workspace, gallery),
                _SPARE_OF_REFERENCE,
                these,
                _SPARE.space == space,
                _SPARE.template.is_not(None),
            )
            .values(template=_SPARE.template, space=_SPARE.space)
        )
        await self._connection.execute(
            delete(SPARE_TEMPLATES).where(
                _spare_of(workspace, gallery), these, (_SPARE.space != space) | _SPARE.refusal.is_(None)
            )
        )
        return references


def _in_hand(now: datetime) -> ColumnElement[bool]:
    return (_NOTE.attempts == 0) & (_NOTE.due_at > now)


def _move(workspace: WorkspaceId, gallery: GalleryId) -> ColumnElement[bool]:
    return (GALLERY_MOVES.c.workspace_id == workspace) & (GALLERY_MOVES.c.gallery_id == gallery)


def _of(workspace: WorkspaceId, gallery: GalleryId) -> ColumnElement[bool]:
    return (_COLUMNS.workspace_id == workspace) & (_COLUMNS.gallery_id == gallery)


def _spare_of(workspace: WorkspaceId, gallery: GalleryId) -> ColumnElement[bool]:
    return (_SPARE.workspace_id == workspace) & (_SPARE.gallery_id == gallery)


def _among(references: Sequence[ReferenceId]) -> Any:  # noqa: ANN401 - SQLAlchemy's own type
    # One parameter, whatever their number: PostgreSQL takes 32,767.
    return any_(literal(list(references), ARRAY(Uuid)))


def _to_move(row: Row[Any]) -> GalleryMove:
    return GalleryMove(
        workspace=WorkspaceId(row.workspace_id),
        gallery=GalleryId(row.gallery_id),
        source=SpaceId(row.source),
        target=SpaceId(row.target),
        job=JobId(row.job_id),
        report=row.report,
        switched_at=row.switched_at,
        asked_at=row.asked_at,
    )
