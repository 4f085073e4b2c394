from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, final
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, LargeBinary, Row, Uuid, any_, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import stretch
from adapters.persistence.person_repository import with_merged
from adapters.persistence.personal import PersonalFields
from adapters.persistence.tables import (
    ANSWERS,
    DATA_KEYS,
    ERASURES,
    JOBS,
    LEDGER_MARK,
    PEOPLE,
    RECONCILIATIONS,
    REFERENCES,
    SPARE_TEMPLATES,
)
from application.ports.cipher import Cipher
from application.ports.erasures import (
    Erasures,
    FiledErasures,
    KeptPeople,
    KeptPerson,
    KeptReference,
    LedgerMark,
    Traces,
)
from application.ports.keyed_hash import KeyedHash
from domain.enrolment import ReferenceId
from domain.erasure import Erasure, ErasureId, Holdings
from domain.errors import PersonNotFound
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId

_ROW = ERASURES.c


@final
class SqlErasures(Erasures):
    """Erasures in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def add(self, erasure: Erasure) -> None:
        await self._connection.execute(
            insert(ERASURES)
            .values(
                workspace_id=erasure.workspace,
                id=erasure.id,
                erased_at=erasure.erased_at,
                digests=list(erasure.digests),
                receipt=None if erasure.receipt is None else dict(erasure.receipt),
                filed=erasure.filed,
            )
            .on_conflict_do_nothing()
        )

    async def save(self, erasure: Erasure) -> None:
        await self._connection.execute(
            update(ERASURES)
            .where(_is(erasure))
            .values(receipt=None if erasure.receipt is None else dict(erasure.receipt), filed=erasure.filed)
        )

    async def of_id(self, workspace: WorkspaceId, erasure: ErasureId) -> Erasure | None:
        found = await self._connection.execute(
            select(ERASURES).where(_ROW.workspace_id == workspace, _ROW.id == erasure)
        )
        row = found.one_or_none()
        return None if row is None else _to_erasure(row)

    async def of_digest(self, workspace: WorkspaceId, digest: bytes) -> Erasure | None:
        found = await self._connection.execute(
            select(ERASURES)
            .where(_ROW.workspace_id == workspace, _ROW.digests.bool_op("@>")(literal([digest], ARRAY(LargeBinary))))
            .order_by(_ROW.id.desc())
            .limit(1)
        )
        row = found.one_or_none()
        return None if row is None else _to_erasure(row)

    async def unfiled(self, *, limit: int) -> Sequence[Erasure]:
        found = await self._connection.execute(
            select(ERASURES).where(_ROW.filed.is_(False)).order_by(_ROW.id).limit(limit)
        )
        return [_to_erasure(row) for row in found]


@final
class SqlFiledErasures(FiledErasures):
    """The same rows, one column at a time."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def filed(self, erasure: Erasure) -> None:
        await self._connection.execute(update(ERASURES).where(_is(erasure)).values(filed=True))

    async def finish(self, erasure: Erasure, receipt: Mapping[str, object]) -> None:
        before = literal(None if erasure.receipt is None else dict(erasure.receipt), _ROW.receipt.type)
        await self._connection.execute(
            update(ERASURES).where(_is(erasure), _ROW.receipt == before).values(receipt=dict(receipt))
        )


@final
class SqlLedgerMark(LedgerMark):
    """One row."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def known(self, erasures: Sequence[ErasureId]) -> frozenset[ErasureId]:
        found = await self._connection.execute(
            select(_ROW.id).where(_ROW.id == any_(literal(list(erasures), ARRAY(Uuid))))
        )
        return frozenset(ErasureId(one) for one in found.scalars())

    async def erasures(self, *, since: datetime | None, after: Erasure | None, limit: int) -> Sequence[Erasure]:
        listed = select(ERASURES).order_by(_ROW.workspace_id, _ROW.id).limit(limit)
        if since is not None:
            listed = listed.where(_ROW.erased_at >= since)
        if after is not None:
            listed = listed.where(tuple_(_ROW.workspace_id, _ROW.id) > tuple_(after.workspace, after.id))
        return [_to_erasure(row) for row in await self._connection.execute(listed)]

    async def replayed_until(self) -> datetime | None:
        found = await self._connection.execute(select(LEDGER_MARK.c.replayed_until))
        return found.scalar()

    async def set_replayed_until(self, moment: datetime) -> None:
        row = {"replayed_until": moment}
        await self._connection.execute(
            insert(LEDGER_MARK).values(row).on_conflict_do_update(constraint=LEDGER_MARK.primary_key, set_=row)
        )


@final
class SqlKeptPeople(KeptPeople):
    """People in PostgreSQL, without what is sealed of them."""

    def __init__(self, connection: SqlConnection, cipher: Cipher, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._personal = PersonalFields(cipher, keyed_hash)

    async def locked(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> KeptPerson:
        columns = PEOPLE.c
        found = await self._connection.execute(
            select(columns.id, columns.gallery_id, columns.merged_into)
            .where(columns.workspace_id == workspace, columns.gallery_id == gallery, columns.id == person)
            .with_for_update(key_share=True)
        )
        row = found.one_or_none()
        if row is None:
            raise PersonNotFound("no such person in this gallery")
        return _to_kept_person(row)

    async def names(self, workspace: WorkspaceId, people: Sequence[PersonId]) -> Sequence[bytes]:
        columns = PEOPLE.c
        found = await self._connection.execute(
            select(columns.external_id_digest)
            .where(
                columns.workspace_id == workspace,
                columns.id == any_(literal(list(people), ARRAY(Uuid))),
                columns.external_id_digest.is_not(None),
            )
            .order_by(columns.id)
        )
        return [bytes(one) for one in found.scalars()]

    def name(self, workspace: WorkspaceId, external_id: str) -> bytes:
        return self._personal.digest(workspace, external_id)

    async def part(self, workspace: WorkspaceId, person: KeptPerson, *, now: datetime) -> None:
        await self._connection.execute(
            update(PEOPLE)
            .where(PEOPLE.c.workspace_id == workspace, PEOPLE.c.id == person.id)
            .values(merged_into=None, updated_at=now, version=PEOPLE.c.version + 1)
        )


@final
class SqlTraces(Traces):
    """Ids and counts in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def of_person(self, workspace: WorkspaceId, person: PersonId) -> tuple[Holdings, Sequence[PersonId]]:
        these = await self._connection.execute(with_merged(workspace, person))
        rows = [PersonId(one) for one in these.scalars()]
        people = sorted({person, *rows})
        named = any_(literal(people, ARRAY(Uuid)))
        references, spare = REFERENCES.c, SPARE_TEMPLATES.c
        whose = (references.workspace_id == workspace) & (
            (references.person_id == named) | (references.enrolled_for == named)
        )
        counted = await self._connection.execute(
            select(
                select(func.count())
                .where(DATA_KEYS.c.workspace_id == workspace, DATA_KEYS.c.person_id == named)
                .scalar_subquery()
                .label("keys"),
                select(func.count()).select_from(REFERENCES).where(whose).scalar_subquery().label("references"),
                select(func.count())
                .select_from(REFERENCES)
                .where(whose, references.image_key.is_not(None))
                .scalar_subquery()
                .label("images"),
                select(func.count())
                .select_from(
                    SPARE_TEMPLATES.join(
                        REFERENCES,
                        (references.workspace_id == spare.workspace_id) & (references.id == spare.reference_id),
                    )
                )
                .where(whose, spare.template.is_not(None))
                .scalar_subquery()
                .label("spare"),
                select(func.count())
                .where(ANSWERS.c.workspace_id == workspace, ANSWERS.c.person_id == named)
                .scalar_subquery()
                .label("answers"),
            )
        )
        row = counted.one()
        held = Holdings(
            people=len(rows),
            keys=row.keys,
            references=row.references,
            templates=row.references + row.spare,
            images=row.images,
            answers=row.answers,
        )
        return held, people

    async def people(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[KeptPerson]:
        columns = PEOPLE.c
        listed = select(columns.id, columns.gallery_id, columns.merged_into).where(columns.workspace_id == workspace)
        found = await self._connection.execute(stretch(listed, columns.id, limit=limit - 1, after=after))
        return [_to_kept_person(row) for row in found]

    async def references(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[KeptReference]:
        columns = REFERENCES.c
        listed = select(columns.id, columns.gallery_id).where(columns.workspace_id == workspace)
        found = await self._connection.execute(stretch(listed, columns.id, limit=limit - 1, after=after))
        return [KeptReference(id=ReferenceId(row.id), gallery=GalleryId(row.gallery_id)) for row in found]

    async def open_jobs(self, workspace: WorkspaceId) -> int:
        found = await self._connection.execute(
            select(func.count()).where(JOBS.c.workspace_id == workspace, JOBS.c.data_key_id.is_not(None))
        )
        return int(found.scalar_one())

    async def noted(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[ReferenceId]:
        columns = RECONCILIATIONS.c
        listed = select(columns.reference_id).where(columns.workspace_id == workspace)
        found = await self._connection.execute(stretch(listed, columns.reference_id, limit=limit - 1, after=after))
        return [ReferenceId(one) for one in found.scalars()]


def _is(erasure: Erasure) -> ColumnElement[bool]:
    return (_ROW.workspace_id == erasure.workspace) & (_ROW.id == erasure.id)


def _to_kept_person(row: Row[Any]) -> KeptPerson:
    return KeptPerson(
        id=PersonId(row.id),
        gallery=GalleryId(row.gallery_id),
        merged_into=None if row.merged_into is None else PersonId(row.merged_into),
    )


def _to_erasure(row: Row[Any]) -> Erasure:
    return Erasure(
        id=ErasureId(row.id),
        workspace=WorkspaceId(row.workspace_id),
        erased_at=row.erased_at,
        digests=tuple(row.digests),
        receipt=row.receipt,
        filed=row.filed,
    )
