from collections.abc import Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, delete, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import violation
from adapters.persistence.pages import page, stretch
from adapters.persistence.personal import IS_OWN_KEY, OWN_KEY, OWN_KEY_COLUMNS, PersonalFields, own_key
from adapters.persistence.tables import DATA_KEYS, PEOPLE, REFERENCES
from application.ports.cipher import Cipher, WrappedKey
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import Page, PersonRepository
from domain.enrolment import ReferenceId
from domain.errors import PersonNotFound, VersionMismatch
from domain.gallery import GalleryId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId

_EXTERNAL_ID_TAKEN = "uq_people_workspace_id_gallery_id_external_id_digest"

_PERSON = select(*PEOPLE.c, *OWN_KEY_COLUMNS).join(OWN_KEY, IS_OWN_KEY)


@final
class SqlPersonRepository(PersonRepository):
    """People in PostgreSQL."""

    def __init__(self, connection: SqlConnection, cipher: Cipher, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._personal = PersonalFields(cipher, keyed_hash)

    async def add(self, person: Person, key: WrappedKey) -> None:
        added = await self._connection.execute(
            insert(PEOPLE)
            .values(
                workspace_id=person.workspace,
                id=person.id,
                gallery_id=person.gallery,
                created_at=person.created_at,
                data_key_id=key.id,
                **self._personal.of_person(person, key),
                **_changeable(person),
            )
            # Nothing to do instead of an error, which would end the transaction: who lost a race for an external_id
            # can go on with the person who won it.
            .on_conflict_do_nothing(constraint=_EXTERNAL_ID_TAKEN)
        )
        if not added.rowcount:
            raise violation(_EXTERNAL_ID_TAKEN)
        await self._connection.execute(
            insert(DATA_KEYS).values(workspace_id=key.workspace, person_id=person.id, id=key.id, wrapped=key.wrapped)
        )

    async def get(
        self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId | str, *, lock: bool = True
    ) -> Person:
        wanted = _PERSON.where(self._is_person(workspace, gallery, person))
        if lock:
            # Not FOR UPDATE: that would also make whoever adds a reference or an answer wait.
            wanted = wanted.with_for_update(key_share=True, of=PEOPLE)
        found = await self._connection.execute(wanted)
        row = found.one_or_none()
        if row is None:
            raise PersonNotFound("no such person in this gallery")
        return self._to_person(row)

    async def page(
        self, workspace: WorkspaceId, gallery: GalleryId, *, limit: int, after: UUID | None, external_id: str | None
    ) -> Page[Person]:
        listed = _PERSON.where(
            PEOPLE.c.workspace_id == workspace, PEOPLE.c.gallery_id == gallery, PEOPLE.c.merged_into.is_(None)
        )
        if external_id is not None:
            listed = listed.where(PEOPLE.c.external_id_digest == self._personal.digest(workspace, external_id))
        found = await self._connection.execute(stretch(listed, PEOPLE.c.id, limit=limit, after=after))
        return page(found.all(), self._to_person, limit=limit)

    async def save(self, person: Person) -> None:
        this = self._is_person(person.workspace, person.gallery, person.id)
        found = await self._connection.execute(
            select(*OWN_KEY_COLUMNS).select_from(PEOPLE).join(OWN_KEY, IS_OWN_KEY).where(this)
        )
        row = found.one_or_none()
        if row is None:
            raise PersonNotFound("no such person in this gallery")
        sealed = self._personal.of_person(person, own_key(person.workspace, row))
        saved = await self._connection.execute(
            update(PEOPLE)
            .where(this, PEOPLE.c.version == person.version - 1, PEOPLE.c.data_key_id == row.own_key_id)
            .values(**sealed, **_changeable(person))
        )
        if not saved.rowcount:
            if (await self._connection.execute(select(exists().where(this)))).scalar_one():
                raise VersionMismatch("the person was changed meanwhile")
            raise PersonNotFound("no such person in this gallery")

    async def remove(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> Sequence[ReferenceId]:
        # By ourselves and not by cascade, which does not say what went.
        columns, going = REFERENCES.c, with_merged(workspace, person)
        gone = await self._connection.execute(
            delete(REFERENCES)
            .where(
                columns.workspace_id == workspace,
                columns.gallery_id == gallery,
                columns.person_id.in_(going) | columns.enrolled_for.in_(going),
            )
            .returning(columns.id)
        )
        references = sorted(ReferenceId(reference) for reference in gone.scalars())
        removed = await self._connection.execute(delete(PEOPLE).where(self._is_person(workspace, gallery, person)))
        if not removed.rowcount:
            raise PersonNotFound("no such person in this gallery")
        return references

    def _is_person(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId | str) -> ColumnElement[bool]:
        if isinstance(person, str):
            by = PEOPLE.c.external_id_digest == self._personal.digest(workspace, person)
        else:
            by = PEOPLE.c.id == person
        return (PEOPLE.c.workspace_id == workspace) & (PEOPLE.c.gallery_id == gallery) & by

    def _to_person(self, row: Row[Any]) -> Person:
        person, workspace = PersonId(row.id), WorkspaceId(row.workspace_id)
        key = own_key(workspace, row)
        return Person(
            id=person,
            workspace=workspace,
            gallery=GalleryId(row.gallery_id),
            external_id=self._personal.external_id(row.external_id, person=person, key=key),
            metadata=self._personal.metadata(row.metadata, person=person, key=key),
            created_at=row.created_at,
            updated_at=row.updated_at,
            version=row.version,
            merged_into=None if row.merged_into is None else PersonId(row.merged_into),
            retention_days=row.retention_days,
            consent_expires_at=row.consent_expires_at,
        )


def with_merged(workspace: WorkspaceId, person: PersonId) -> Select[UUID]:
    """Select the ids of a person and of everybody merged into them, at whatever remove."""
    this = select(PEOPLE.c.id).where(PEOPLE.c.workspace_id == workspace, PEOPLE.c.id == person)
    found = this.cte("with_merged", recursive=True)
    merged = select(PEOPLE.c.id).where(PEOPLE.c.workspace_id == workspace, PEOPLE.c.merged_into == found.c.id)
    return select(found.union(merged).c.id)


def _changeable(person: Person) -> dict[str, object]:
    return {
        "updated_at": person.updated_at,
        "version": person.version,
        "merged_into": person.merged_into,
        "retention_days": person.retention_days,
        "consent_expires_at": person.consent_expires_at,
    }
