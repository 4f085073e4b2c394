from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    LargeBinary,
    Row,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    case,
    func,
    select,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.counts import Counts
from adapters.persistence.errors import translated
from adapters.persistence.gallery_repository import to_gallery
from adapters.persistence.personal import IS_OWN_KEY, OWN_KEY, OWN_KEY_COLUMNS, PersonalFields, own_key
from adapters.persistence.retention import CONSENTED
from adapters.persistence.tables import DATA_KEYS, GALLERIES, PEOPLE, REFERENCES, SPARE_TEMPLATES
from application.ports.cipher import Cipher, DataKeyId, WrappedKey
from application.ports.keyed_hash import KeyedHash
from application.ports.record import Record, SealedTemplate
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.errors import GalleryNotFound, PersonMerged, PersonNotFound
from domain.gallery import Gallery, GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId

_BEFORE_ALL: Final = UUID(int=0)

# Built once: every verification runs one of them, and building one costs more than running it.
_WORKSPACE: Final = bindparam("workspace", type_=Uuid)
_GALLERY: Final = bindparam("gallery", type_=Uuid)

_GALLERIES: Final = select(GALLERIES).where(GALLERIES.c.workspace_id == _WORKSPACE)
_BY_ID: Final = GALLERIES.c.id == _GALLERY
_BY_NAME: Final = GALLERIES.c.name == bindparam("gallery")
_GALLERY_BY_ID: Final = _GALLERIES.where(_BY_ID)
_GALLERY_BY_NAME: Final = _GALLERIES.where(_BY_NAME)

_KEY: Final = (
    (DATA_KEYS.c.workspace_id == REFERENCES.c.workspace_id)
    & (DATA_KEYS.c.person_id == REFERENCES.c.enrolled_for)
    & (DATA_KEYS.c.id == REFERENCES.c.data_key_id)
)


def _sealed(space: ColumnElement[str]) -> tuple[ColumnElement[Any], ...]:
    """What makes a `SealedTemplate` of a space: the template is null where the reference has none of it."""
    # A scalar query, which is not run where the reference was enrolled in that space: so for all but those who moved.
    spare = (
        select(SPARE_TEMPLATES.c.template)
        .where(
            SPARE_TEMPLATES.c.workspace_id == REFERENCES.c.workspace_id,
            SPARE_TEMPLATES.c.reference_id == REFERENCES.c.id,
            SPARE_TEMPLATES.c.space == space,
        )
        .scalar_subquery()
    )
    return (
        REFERENCES.c.id.label("reference_id"),
        case((REFERENCES.c.space == space, REFERENCES.c.template), else_=spare).label("template"),
        space.label("template_space"),
        DATA_KEYS.c.id.label("key_id"),
        DATA_KEYS.c.wrapped,
        PEOPLE.c.id.label("person_id"),
        PEOPLE.c.external_id,
        *OWN_KEY_COLUMNS,
    )


def _of_person(gallery: ColumnElement[bool], person: ColumnElement[bool]) -> Select[Any]:
    """From the gallery outwards: no row is an unknown gallery, a row without a person an unknown one, and so on."""
    return (
        select(*GALLERIES.c, *_sealed(GALLERIES.c.space), PEOPLE.c.merged_into)
        .select_from(GALLERIES)
        .outerjoin(
            PEOPLE,
            (PEOPLE.c.workspace_id == GALLERIES.c.workspace_id)
            & (PEOPLE.c.gallery_id == GALLERIES.c.id)
            & person
            & CONSENTED,
        )
        .outerjoin(
            REFERENCES, (REFERENCES.c.workspace_id == PEOPLE.c.workspace_id) & (REFERENCES.c.person_id == PEOPLE.c.id)
        )
        .outerjoin(DATA_KEYS, _KEY)
        .outerjoin(OWN_KEY, IS_OWN_KEY)
        .where(GALLERIES.c.workspace_id == _WORKSPACE, gallery)
        .order_by(REFERENCES.c.id)
    )


_PERSON_BY_ID: Final = PEOPLE.c.id == bindparam("person", type_=Uuid)
_PERSON_BY_EXTERNAL_ID: Final = PEOPLE.c.external_id_digest == bindparam("person", type_=LargeBinary)
_OF_PERSON: Final = {
    (by_name, by_external_id): _of_person(
        _BY_NAME if by_name else _BY_ID, _PERSON_BY_EXTERNAL_ID if by_external_id else _PERSON_BY_ID
    )
    for by_name in (False, True)
    for by_external_id in (False, True)
}

_SPACE: Final = func.coalesce(bindparam("space", type_=Text), GALLERIES.c.space)
_OF_GALLERY: Final = (
    select(*_sealed(_SPACE))
    .select_from(REFERENCES)
    .join(GALLERIES, (GALLERIES.c.workspace_id == _WORKSPACE) & (GALLERIES.c.id == _GALLERY))
    .join(PEOPLE, (PEOPLE.c.workspace_id == REFERENCES.c.workspace_id) & (PEOPLE.c.id == REFERENCES.c.person_id))
    .join(DATA_KEYS, _KEY)
    .join(OWN_KEY, IS_OWN_KEY)
    .where(REFERENCES.c.workspace_id == _WORKSPACE, REFERENCES.c.gallery_id == _GALLERY)
)
_THESE: Final = _OF_GALLERY.where(REFERENCES.c.id == any_(bindparam("references", type_=ARRAY(Uuid))))
_THESE_CONSENTED: Final = _THESE.where(CONSENTED)
_BEHIND: Final = (
    _OF_GALLERY.where(
        REFERENCES.c.id > bindparam("after", type_=Uuid),
        (REFERENCES.c.space == _SPACE)
        | select(SPARE_TEMPLATES.c.space)
        .where(
            SPARE_TEMPLATES.c.workspace_id == REFERENCES.c.workspace_id,
            SPARE_TEMPLATES.c.reference_id == REFERENCES.c.id,
            SPARE_TEMPLATES.c.space == _SPACE,
            SPARE_TEMPLATES.c.template.is_not(None),
        )
        .exists(),
    )
    .order_by(REFERENCES.c.id)
    .limit(bindparam("limit"))
)

# Those left behind are few: to count them apart leaves the larger count to an index alone.
_LEFT_BEHIND: Final = (
    select(func.count())
    .select_from(SPARE_TEMPLATES)
    .join(
        GALLERIES,
        (GALLERIES.c.workspace_id == SPARE_TEMPLATES.c.workspace_id) & (GALLERIES.c.id == SPARE_TEMPLATES.c.gallery_id),
    )
    .where(
        SPARE_TEMPLATES.c.workspace_id == _WORKSPACE,
        SPARE_TEMPLATES.c.gallery_id == _GALLERY,
        SPARE_TEMPLATES.c.space == GALLERIES.c.space,
        SPARE_TEMPLATES.c.refusal.is_not(None),
    )
    .scalar_subquery()
)
_NUMBER: Final = (
    select(func.count() - _LEFT_BEHIND)
    .select_from(REFERENCES)
    .where(REFERENCES.c.workspace_id == _WORKSPACE, REFERENCES.c.gallery_id == _GALLERY)
)


@final
class SqlRecord(Record):
    """Reads PostgreSQL over AUTOCOMMIT connections (`Database.reads`). Closed with `aclose`."""

    def __init__(self, reads: AsyncEngine, cipher: Cipher, keyed_hash: KeyedHash) -> None:
        self._reads = reads
        self._personal = PersonalFields(cipher, keyed_hash)
        self._counts = Counts(self._count)

    async def gallery(self, workspace: WorkspaceId, gallery: GalleryId | str) -> Gallery:
        by = _GALLERY_BY_NAME if isinstance(gallery, str) else _GALLERY_BY_ID
        rows = await self._rows(by, {"workspace": workspace, "gallery": gallery})
        if not rows:
            raise GalleryNotFound("no such gallery")
        return to_gallery(rows[0])

    async def templates_of(
        self, workspace: WorkspaceId, gallery: GalleryId | str, person: PersonId | str
    ) -> tuple[Gallery, Sequence[SealedTemplate]]:
        statement = _OF_PERSON[isinstance(gallery, str), isinstance(person, str)]
        named = self._personal.digest(workspace, person) if isinstance(person, str) else person
        rows = await self._rows(statement, {"workspace": workspace, "gallery": gallery, "person": named})
        if not rows:
            raise GalleryNotFound("no such gallery")
        if rows[0].person_id is None:
            raise PersonNotFound("no such person in this gallery")
        if rows[0].merged_into is not None:
            raise PersonMerged(f"this person was merged into {rows[0].merged_into}")
        return to_gallery(rows[0]), self._to_sealed(workspace, rows)

    async def templates(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        references: Sequence[ReferenceId],
        *,
        space: SpaceId | None = None,
        consented: bool = False,
    ) -> Sequence[SealedTemplate]:
        rows = await self._rows(
            _THESE_CONSENTED if consented else _THESE,
            {"workspace": workspace, "gallery": gallery, "references": list(references), "space": space},
        )
        return self._to_sealed(workspace, rows)

    async def references_in(self, workspace: WorkspaceId, gallery: GalleryId) -> int:
        return await self._counts.of((workspace, gallery))

    async def all_templates(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        *,
        after: ReferenceId | None,
        limit: int,
        space: SpaceId | None = None,
    ) -> Sequence[SealedTemplate]:
        where = {"workspace": workspace, "gallery": gallery, "space": space}
        rows = await self._rows(_BEHIND, {**where, "after": after or _BEFORE_ALL, "limit": limit})
        return self._to_sealed(workspace, rows)

    async def aclose(self) -> None:
        """Wait for what still runs. The pool is its owner's to close."""
        await self._counts.aclose()

    async def _count(self, key: tuple[WorkspaceId, GalleryId]) -> int:
        workspace, gallery = key
        rows = await self._rows(_NUMBER, {"workspace": workspace, "gallery": gallery})
        return int(rows[0][0])

    async def _rows(self, statement: Executable, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        with translated():
            async with self._reads.connect() as connection:
                return (await connection.execute(statement, parameters)).all()

    def _to_sealed(self, workspace: WorkspaceId, rows: Sequence[Row[Any]]) -> list[SealedTemplate]:
        return [
            SealedTemplate(
                reference=ReferenceId(row.reference_id),
                person=PersonId(row.person_id),
                key=WrappedKey(id=DataKeyId(row.key_id), workspace=workspace, wrapped=row.wrapped),
                space=SpaceId(row.template_space),
                template=row.template,
                read_external_id=partial(
                    self._personal.external_id,
                    row.external_id,
                    person=PersonId(row.person_id),
                    key=own_key(workspace, row),
                ),
            )
            for row in rows
            if row.template is not None
        ]
