from collections.abc import Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy import Row, delete, insert, select, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import page, stretch
from adapters.persistence.person_repository import with_merged
from adapters.persistence.personal import PersonalFields
from adapters.persistence.tables import DATA_KEYS, GALLERIES, REFERENCES, SPARE_TEMPLATES
from application.ports.cipher import Cipher, DataKeyId, WrappedKey
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import NewReference, Page, ReferenceRepository
from domain.embedding import SpaceId
from domain.enrolment import Reference, ReferenceId
from domain.errors import PersonNotFound, ReferenceNotFound
from domain.face import Box
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.quality import Quality, Reason
from domain.workspace import WorkspaceId

# All but the template, which only `Record` and `ReconciliationRepository` read; and the key that opens the file name.
_DESCRIPTION = [
    *(column for column in REFERENCES.c if column is not REFERENCES.c.template),
    DATA_KEYS.c.wrapped,
]
_IS_KEY = (
    (DATA_KEYS.c.workspace_id == REFERENCES.c.workspace_id)
    & (DATA_KEYS.c.person_id == REFERENCES.c.enrolled_for)
    & (DATA_KEYS.c.id == REFERENCES.c.data_key_id)
)

# A reference that could not follow its gallery into another space is in no index that is searched.
_IN_SPACE = (
    select(GALLERIES.c.id)
    .select_from(
        GALLERIES.outerjoin(
            SPARE_TEMPLATES,
            (SPARE_TEMPLATES.c.workspace_id == GALLERIES.c.workspace_id)
            & (SPARE_TEMPLATES.c.reference_id == REFERENCES.c.id)
            & (SPARE_TEMPLATES.c.space == GALLERIES.c.space),
        )
    )
    .where(
        GALLERIES.c.workspace_id == REFERENCES.c.workspace_id,
        GALLERIES.c.id == REFERENCES.c.gallery_id,
        (GALLERIES.c.space == REFERENCES.c.space) | SPARE_TEMPLATES.c.template.is_not(None),
    )
    .correlate(REFERENCES)
    .exists()
)
_LISTED = [
    *(column for column in _DESCRIPTION if column is not REFERENCES.c.searchable),
    (REFERENCES.c.searchable & _IN_SPACE).label("searchable"),
]


@final
class SqlReferenceRepository(ReferenceRepository):
    """References in PostgreSQL."""

    def __init__(self, connection: SqlConnection, cipher: Cipher, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._personal = PersonalFields(cipher, keyed_hash)

    async def key_of(self, workspace: WorkspaceId, person: PersonId) -> WrappedKey:
        found = await self._connection.execute(
            select(DATA_KEYS)
            .where(DATA_KEYS.c.workspace_id == workspace, DATA_KEYS.c.person_id == person)
            .order_by(DATA_KEYS.c.id.desc())  # the newest, since ids sort by time
            .limit(1)
        )
        row = found.one_or_none()
        if row is None:
            raise PersonNotFound("no such person")
        return WrappedKey(id=DataKeyId(row.id), workspace=workspace, wrapped=row.wrapped)

    async def add(self, references: Sequence[NewReference]) -> bool:
        if not references:
            return True
        one = references[0].reference
        found = await self._connection.execute(
            select(GALLERIES.c.space)
            .where(GALLERIES.c.workspace_id == one.workspace, GALLERIES.c.id == one.gallery)
            .with_for_update(read=True)
        )
        if found.scalar() not in {one.space, None}:
            return False
        await self._connection.execute(insert(REFERENCES), [self._to_row(new) for new in references])
        return True

    async def page(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        *,
        limit: int,
        after: UUID | None,
        person: PersonId | None = None,
        reference: ReferenceId | None = None,
    ) -> Page[Reference]:
        listed = (
            select(*_LISTED)
            .select_from(REFERENCES)
            .join(DATA_KEYS, _IS_KEY)
            .where(REFERENCES.c.workspace_id == workspace, REFERENCES.c.gallery_id == gallery)
        )
        if person is not None:
            listed = listed.where(REFERENCES.c.person_id == person)
        if reference is not None:
            listed = listed.where(REFERENCES.c.id == reference)
        found = await self._connection.execute(stretch(listed, REFERENCES.c.id, limit=limit, after=after))
        return page(found.all(), self._to_reference, limit=limit)

    async def remove(self, workspace: WorkspaceId, gallery: GalleryId, reference: ReferenceId) -> Reference:
        removed = await self._connection.execute(
            delete(REFERENCES)
            .where(
                REFERENCES.c.workspace_id == workspace,
                REFERENCES.c.gallery_id == gallery,
                REFERENCES.c.id == reference,
                _IS_KEY,
            )
            .returning(*_DESCRIPTION)
        )
        row = removed.one_or_none()
        if row is None:
            raise ReferenceNotFound("no such reference in this gallery")
        return self._to_reference(row)

    async def move(
        self, workspace: WorkspaceId, gallery: GalleryId, *, source: PersonId, target: PersonId, back: bool
    ) -> Sequence[ReferenceId]:
        moving = (
            update(REFERENCES)
            .where(
                REFERENCES.c.workspace_id == workspace,
                REFERENCES.c.gallery_id == gallery,
                REFERENCES.c.person_id == source,
            )
            .values(person_id=target)
            .returning(REFERENCES.c.id)
        )
        if back:
            moving = moving.where(REFERENCES.c.enrolled_for.in_(with_merged(workspace, target)))
        moved = await self._connection.execute(moving)
        return sorted(ReferenceId(reference) for reference in moved.scalars())

    def _to_row(self, new: NewReference) -> dict[str, object]:
        reference = new.reference
        box = reference.box
        return {
            "workspace_id": reference.workspace,
            "id": reference.id,
            "gallery_id": reference.gallery,
            "person_id": reference.person,
            "enrolled_for": reference.person,
            "data_key_id": new.key.id,
            "space": reference.space,
            "template": new.template,
            "quality_score": reference.quality.score,
            "quality_reasons": [reason.value for reason in reference.quality.reasons],
            "box": [box.left, box.top, box.right, box.bottom],
            "filename": self._personal.of_filename(reference.filename, reference=reference.id, key=new.key),
            "image_key": reference.image_key,
            "image_type": reference.image_type,
            "searchable": reference.searchable,
            "created_at": reference.created_at,
        }

    def _to_reference(self, row: Row[Any]) -> Reference:
        reference, workspace = ReferenceId(row.id), WorkspaceId(row.workspace_id)
        key = WrappedKey(id=DataKeyId(row.data_key_id), workspace=workspace, wrapped=row.wrapped)
        return Reference(
            id=reference,
            workspace=workspace,
            gallery=GalleryId(row.gallery_id),
            person=PersonId(row.person_id),
            space=SpaceId(row.space),
            quality=Quality(row.quality_score, tuple(map(Reason, row.quality_reasons))),
            box=Box(*row.box),
            filename=self._personal.filename(row.filename, reference=reference, key=key),
            image_key=row.image_key,
            image_type=row.image_type,
            searchable=row.searchable,
            created_at=row.created_at,
        )
