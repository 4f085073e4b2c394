import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from os import urandom
from uuid import UUID

import pytest
from sqlalchemy import func, select

from adapters.persistence.answer_repository import SqlAnswerRepository
from adapters.persistence.api_key_repository import SqlApiKeyRepository
from adapters.persistence.connection import SqlConnection
from adapters.persistence.credentials import SqlCredentials
from adapters.persistence.database import Database
from adapters.persistence.gallery_repository import SqlGalleryRepository
from adapters.persistence.person_repository import SqlPersonRepository
from adapters.persistence.reconciliation_repository import SqlReconciliationRepository
from adapters.persistence.reference_repository import SqlReferenceRepository
from adapters.persistence.tables import ANSWERS, DATA_KEYS, METADATA, PEOPLE, REFERENCES
from adapters.persistence.transaction import SqlTransaction
from adapters.persistence.workspace_repository import SqlWorkspaceRepository
from adapters.system.id_generator import UuidV7Generator
from application.ports.cipher import DataKeyId, WrappedKey
from application.ports.repositories import Answer, NewReference, Pending
from domain.credential import ApiKey, ApiKeyId
from domain.embedding import SpaceId
from domain.enrolment import Reference, ReferenceId
from domain.errors import (
    ExternalIdTaken,
    GalleryKept,
    GalleryNameTaken,
    GalleryNotFound,
    PersonNotFound,
    ReferenceNotFound,
    VersionMismatch,
)
from domain.face import Box
from domain.gallery import Gallery, GalleryId, Policy
from domain.permission import Scope
from domain.person import Person, PersonId
from domain.quality import Quality, Reason
from domain.workspace import Workspace, WorkspaceId
from tests.locks import somebody_waits
from tests.trail import CIPHER, KEYED_HASH, trail

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SPACE = SpaceId("open@1:0123456789ab")
IDS = UuidV7Generator()


class Unit:
    """One request: its repositories and their transaction."""

    def __init__(self, database: Database) -> None:
        self.connection = SqlConnection(database.transactions)
        self.transaction = SqlTransaction(self.connection, trail(self.connection))
        self.workspaces = SqlWorkspaceRepository(self.connection)
        self.galleries = SqlGalleryRepository(self.connection)
        self.people = SqlPersonRepository(self.connection, CIPHER, KEYED_HASH)
        self.references = SqlReferenceRepository(self.connection, CIPHER, KEYED_HASH)
        self.notes = SqlReconciliationRepository(self.connection)
        self.keys = SqlApiKeyRepository(self.connection)
        self.answers = SqlAnswerRepository(self.connection, KEYED_HASH)


Begin = Callable[[], "asynccontextmanager[Unit]"]


@pytest.fixture
def begin(database: Database) -> Begin:
    @asynccontextmanager
    async def unit() -> AsyncIterator[Unit]:
        begun = Unit(database)
        try:
            yield begun
        finally:
            await begun.connection.aclose()

    return unit


@pytest.fixture
async def unit(begin: Begin) -> AsyncIterator[Unit]:
    async with begin() as begun:
        yield begun


@pytest.fixture
async def workspace(begin: Begin) -> WorkspaceId:
    return await kept_workspace(begin, "ours")


@pytest.fixture
async def stranger(begin: Begin) -> WorkspaceId:
    return await kept_workspace(begin, "theirs")


@pytest.fixture
async def gallery(begin: Begin, workspace: WorkspaceId) -> Gallery:
    made = a_gallery(workspace)
    async with begin() as unit:
        await unit.galleries.add(made)
        await unit.transaction.commit()
    return made


@pytest.fixture
async def person(begin: Begin, gallery: Gallery) -> Person:
    return await kept_person(begin, gallery, "emp-17")


async def kept_workspace(begin: Begin, name: str) -> WorkspaceId:
    workspace = Workspace(id=WorkspaceId(IDS.new()), name=name, created_at=NOW)
    async with begin() as unit:
        await unit.workspaces.add(workspace)
        await unit.transaction.commit()
    return workspace.id


async def kept_person(begin: Begin, gallery: Gallery, external_id: str | None = None) -> Person:
    made = a_person(gallery, external_id)
    async with begin() as unit:
        await unit.people.add(made, a_key(gallery.workspace))
        await unit.transaction.commit()
    return made


async def kept_references(begin: Begin, person: Person, count: int) -> list[NewReference]:
    async with begin() as unit:
        key = await unit.references.key_of(person.workspace, person.id)
        made = [a_reference(person, key) for _ in range(count)]
        await unit.references.add(made)
        await unit.transaction.commit()
    return made


def a_gallery(workspace: WorkspaceId, name: str = "default") -> Gallery:
    return Gallery(
        id=GalleryId(IDS.new()),
        workspace=workspace,
        name=name,
        space=SPACE,
        policy=Policy(
            target_fmr=1e-4,
            search_threshold=0.5,
            refused_reasons=frozenset({Reason.TOO_DARK, Reason.LOW_SHARPNESS}),
            keep_images=False,
        ),
        created_at=NOW,
        updated_at=NOW,
        version=1,
    )


def a_person(gallery: Gallery, external_id: str | None = None) -> Person:
    return Person(
        id=PersonId(IDS.new()),
        workspace=gallery.workspace,
        gallery=gallery.id,
        external_id=external_id,
        metadata={"name": "Zoë", "": "\u2028", "nested": '{"a": 1}'},
        created_at=NOW,
        updated_at=NOW,
        version=1,
    )


def a_key(workspace: WorkspaceId) -> WrappedKey:
    return CIPHER.new_key(DataKeyId(IDS.new()), workspace=workspace)


def a_reference(person: Person, key: WrappedKey) -> NewReference:
    reference = Reference(
        id=ReferenceId(IDS.new()),
        workspace=person.workspace,
        gallery=person.gallery,
        person=person.id,
        space=SPACE,
        quality=Quality(0.123456789, (Reason.TOO_DARK, Reason.FACE_CUT_OFF)),
        box=Box(1.1, 2.2, 3.3, 4.4),
        filename="a/b ü.jpg",
        image_key="images/1",
        image_type="image/jpeg",
        searchable=False,
        created_at=NOW,
    )
    return NewReference(reference=reference, key=key, template=urandom(2077))


def an_answer(workspace: WorkspaceId, body: bytes = b"sealed") -> Answer:
    return Answer(fingerprint=b"f" * 32, key=a_key(workspace), body=body)


async def locked(unit: Unit, workspace: WorkspaceId, reference: ReferenceId) -> Pending | None:
    """What the record says of a reference that is noted, None where another transaction holds it."""
    return (await unit.notes.lock(workspace, [reference]))[reference]


async def rows(database: Database) -> dict[str, int]:
    async with database.reads.connect() as connection:
        return {
            table.name: await connection.scalar(select(func.count()).select_from(table))
            for table in (PEOPLE, DATA_KEYS, REFERENCES, ANSWERS)
        }


class TestTransaction:
    async def test_what_is_not_committed_is_rolled_back_when_the_request_ends(self, begin: Begin) -> None:
        async with begin() as unit:
            await unit.workspaces.add(Workspace(id=WorkspaceId(IDS.new()), name="lost", created_at=NOW))
            assert await unit.workspaces.named("lost") is not None
        async with begin() as unit:
            assert await unit.workspaces.named("lost") is None

    async def test_others_see_what_was_committed_and_nothing_before(self, begin: Begin) -> None:
        workspace = Workspace(id=WorkspaceId(IDS.new()), name="ours", created_at=NOW)
        async with begin() as writer, begin() as reader:
            await writer.workspaces.add(workspace)
            assert await reader.workspaces.named("ours") is None
            await writer.transaction.commit()
            assert await reader.workspaces.named("ours") == workspace

    async def test_rollback_forgets_what_came_since_the_last_commit(self, unit: Unit) -> None:
        first, second = (Workspace(id=WorkspaceId(IDS.new()), name=name, created_at=NOW) for name in "ab")
        await unit.workspaces.add(first)
        await unit.transaction.commit()
        await unit.workspaces.add(second)
        await unit.transaction.rollback()
        assert await unit.workspaces.named("a") == first
        assert await unit.workspaces.named("b") is None

    async def test_ending_without_a_query_is_nothing(self, unit: Unit) -> None:
        await unit.transaction.commit()
        await unit.transaction.rollback()

    async def test_no_connection_is_held_before_the_first_query_and_after_the_last(
        self, unit: Unit, database: Database
    ) -> None:
        pool = database.transactions.pool
        assert pool.checkedout() == 0
        await unit.workspaces.named("ours")
        assert pool.checkedout() == 1
        await unit.transaction.commit()
        assert pool.checkedout() == 0

    async def test_a_request_that_is_cancelled_leaves_neither_a_lock_nor_a_connection(
        self, begin: Begin, database: Database, person: Person
    ) -> None:
        async def request() -> None:
            async with begin() as unit:
                await unit.people.get(person.workspace, person.gallery, person.id)

        async with begin() as holder:
            await holder.people.get(person.workspace, person.gallery, person.id)
            waiting = asyncio.create_task(request())
            await somebody_waits(database)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with asyncio.timeout(30.0):
            await request()
        assert database.transactions.pool.checkedout() == 0


class TestGalleries:
    async def test_a_gallery_comes_back_as_it_was(self, unit: Unit, gallery: Gallery) -> None:
        assert await unit.galleries.get(gallery.workspace, gallery.id) == gallery
        assert await unit.galleries.get(gallery.workspace, gallery.name) == gallery

    async def test_another_workspaces_gallery_is_not_found(
        self, unit: Unit, gallery: Gallery, stranger: WorkspaceId
    ) -> None:
        for named in (gallery.id, gallery.name, GalleryId(IDS.new()), "unknown"):
            with pytest.raises(GalleryNotFound):
                await unit.galleries.get(stranger, named)
        with pytest.raises(GalleryNotFound):
            await unit.galleries.save(replace(gallery, workspace=stranger, version=2))
        with pytest.raises(GalleryNotFound):
            await unit.galleries.remove(stranger, gallery.id)
        assert (await unit.galleries.page(stranger, limit=10, after=None)).items == ()
        assert await unit.galleries.get(gallery.workspace, gallery.id) == gallery

    async def test_a_name_is_taken_once_a_workspace(self, unit: Unit, gallery: Gallery, stranger: WorkspaceId) -> None:
        with pytest.raises(GalleryNameTaken):
            await unit.galleries.add(a_gallery(gallery.workspace))
        await unit.galleries.add(a_gallery(stranger))
        other = a_gallery(gallery.workspace, "other")
        await unit.galleries.add(other)
        with pytest.raises(GalleryNameTaken):
            await unit.galleries.save(replace(other, name=gallery.name, version=2))

    async def test_saving_replaces_what_can_be_changed(self, unit: Unit, gallery: Gallery) -> None:
        changed = replace(
            gallery, name="other", policy=Policy(hide_uncertain=True), updated_at=NOW + timedelta(1), version=2
        )
        await unit.galleries.save(changed)
        assert await unit.galleries.get(gallery.workspace, "other") == changed

    async def test_a_version_is_replaced_once(self, unit: Unit, gallery: Gallery) -> None:
        await unit.galleries.save(replace(gallery, version=2))
        for version in (1, 2, 4):
            with pytest.raises(VersionMismatch):
                await unit.galleries.save(replace(gallery, version=version))

    async def test_pages_hold_every_gallery_once_oldest_first(self, unit: Unit, workspace: WorkspaceId) -> None:
        made = [a_gallery(workspace, f"g{number}") for number in range(5)]
        for gallery in reversed(made):
            await unit.galleries.add(gallery)
        first = await unit.galleries.page(workspace, limit=2, after=None)
        second = await unit.galleries.page(workspace, limit=2, after=first.next_after)
        third = await unit.galleries.page(workspace, limit=2, after=second.next_after)
        assert [*first.items, *second.items, *third.items] == made
        assert (first.next_after, second.next_after, third.next_after) == (made[1].id, made[3].id, None)
        assert (await unit.galleries.page(workspace, limit=5, after=None)).next_after is None

    async def test_an_empty_gallery_can_be_removed(self, unit: Unit, gallery: Gallery) -> None:
        await unit.galleries.remove(gallery.workspace, gallery.id)
        for call in (unit.galleries.get, unit.galleries.remove):
            with pytest.raises(GalleryNotFound):
                await call(gallery.workspace, gallery.id)

    async def test_a_gallery_with_people_stays(self, unit: Unit, gallery: Gallery, person: Person) -> None:
        with pytest.raises(GalleryKept):
            await unit.galleries.remove(gallery.workspace, gallery.id)
        await unit.transaction.rollback()
        assert await unit.people.get(gallery.workspace, gallery.id, person.id) == person

    async def test_a_gallery_that_somebody_is_being_added_to_stays(
        self, begin: Begin, database: Database, gallery: Gallery
    ) -> None:
        async with begin() as adding, begin() as removing:
            await adding.people.add(a_person(gallery), a_key(gallery.workspace))
            removal = asyncio.create_task(removing.galleries.remove(gallery.workspace, gallery.id))
            await somebody_waits(database)
            await adding.transaction.commit()
            with pytest.raises(GalleryKept):
                await removal


class TestPeople:
    async def test_a_person_comes_back_as_they_were(self, unit: Unit, person: Person) -> None:
        assert await unit.people.get(person.workspace, person.gallery, person.id) == person
        assert await unit.people.get(person.workspace, person.gallery, "emp-17") == person

    async def test_a_uuid_can_be_an_external_id(self, begin: Begin, unit: Unit, gallery: Gallery) -> None:
        person = await kept_person(begin, gallery, str(IDS.new()))
        assert await unit.people.get(gallery.workspace, gallery.id, person.external_id or "") == person
        with pytest.raises(PersonNotFound):
            await unit.people.get(gallery.workspace, gallery.id, PersonId(UUID(person.external_id)))

    async def test_people_of_other_workspaces_and_galleries_are_not_found(
        self, begin: Begin, unit: Unit, person: Person, stranger: WorkspaceId
    ) -> None:
        elsewhere = a_gallery(person.workspace, "elsewhere")
        async with begin() as adding:
            await adding.galleries.add(elsewhere)
            await adding.transaction.commit()
        for workspace, gallery in ((stranger, person.gallery), (person.workspace, elsewhere.id)):
            for named in (person.id, "emp-17"):
                with pytest.raises(PersonNotFound):
                    await unit.people.get(workspace, gallery, named)
            with pytest.raises(PersonNotFound):
                await unit.people.save(replace(person, workspace=workspace, gallery=gallery, version=2))
            with pytest.raises(PersonNotFound):
                await unit.people.remove(workspace, gallery, person.id)
            page = await unit.people.page(workspace, gallery, limit=10, after=None, external_id=None)
            assert page.items == ()
        with pytest.raises(PersonNotFound):
            await unit.references.key_of(stranger, person.id)

    async def test_an_external_id_is_taken_once_a_gallery(self, unit: Unit, gallery: Gallery, person: Person) -> None:
        with pytest.raises(ExternalIdTaken):
            await unit.people.add(a_person(gallery, "emp-17"), a_key(gallery.workspace))
        # The transaction goes on, so that the call can go on with the person who is there.
        assert await unit.people.get(gallery.workspace, gallery.id, "emp-17") == person
        other = a_person(gallery)
        await unit.people.add(other, a_key(gallery.workspace))
        await unit.people.add(a_person(gallery), a_key(gallery.workspace))
        with pytest.raises(ExternalIdTaken):
            await unit.people.save(replace(other, external_id="emp-17", version=2))

    async def test_of_two_who_add_one_external_id_the_second_waits_and_meets_the_first(
        self, begin: Begin, database: Database, gallery: Gallery
    ) -> None:
        first, second = a_person(gallery, "new"), a_person(gallery, "new")
        async with begin() as one, begin() as other:
            await one.people.add(first, a_key(gallery.workspace))
            adding = asyncio.create_task(other.people.add(second, a_key(gallery.workspace)))
            await somebody_waits(database)
            await one.transaction.commit()
            with pytest.raises(ExternalIdTaken):
                await adding
            assert await other.people.get(gallery.workspace, gallery.id, "new") == first

    async def test_nobody_is_added_to_a_gallery_that_is_not_there(
        self, unit: Unit, gallery: Gallery, stranger: WorkspaceId
    ) -> None:
        with pytest.raises(GalleryNotFound):
            await unit.people.add(a_person(replace(gallery, workspace=stranger)), a_key(stranger))

    async def test_a_person_who_was_got_is_locked_until_the_transaction_ends(
        self, begin: Begin, database: Database, person: Person
    ) -> None:
        async with begin() as one, begin() as other:
            await one.people.get(person.workspace, person.gallery, person.id)
            getting = asyncio.create_task(other.people.get(person.workspace, person.gallery, person.id))
            await somebody_waits(database)
            changed = replace(person, metadata={}, version=2)
            await one.people.save(changed)
            await one.transaction.commit()
            assert await getting == changed

    async def test_a_person_is_read_without_a_lock_beside_one_who_holds_it(
        self, begin: Begin, unit: Unit, person: Person
    ) -> None:
        async with begin() as holder:
            this = person.workspace, person.gallery, person.id
            await holder.people.get(*this)
            await holder.people.save(replace(person, metadata={}, version=2))
            async with asyncio.timeout(30.0):
                assert await unit.people.get(*this, lock=False) == person

    async def test_saving_replaces_what_can_be_changed(self, begin: Begin, unit: Unit, person: Person) -> None:
        gallery = await unit.galleries.get(person.workspace, person.gallery)
        target = await kept_person(begin, gallery)
        changed = replace(
            person,
            external_id=None,
            metadata={"a": "b"},
            updated_at=NOW + timedelta(1),
            version=2,
            merged_into=target.id,
        )
        await unit.people.save(changed)
        assert await unit.people.get(person.workspace, person.gallery, person.id) == changed

    async def test_a_version_is_replaced_once(self, unit: Unit, person: Person) -> None:
        await unit.people.save(replace(person, version=2))
        for version in (1, 2, 4):
            with pytest.raises(VersionMismatch):
                await unit.people.save(replace(person, version=version))

    async def test_pages_leave_out_who_was_merged(self, begin: Begin, unit: Unit, gallery: Gallery) -> None:
        people = [await kept_person(begin, gallery, f"emp-{number}") for number in range(5)]
        await unit.people.save(replace(people[1], merged_into=people[0].id, version=2))
        first = await unit.people.page(gallery.workspace, gallery.id, limit=2, after=None, external_id=None)
        rest = await unit.people.page(gallery.workspace, gallery.id, limit=2, after=first.next_after, external_id=None)
        assert [*first.items, *rest.items] == [people[0], people[2], people[3], people[4]]
        assert (first.next_after, rest.next_after) == (people[2].id, None)

    async def test_a_page_can_be_of_one_external_id(self, begin: Begin, unit: Unit, gallery: Gallery) -> None:
        people = [await kept_person(begin, gallery, f"emp-{number}") for number in range(2)]
        for external_id, found in (("emp-1", (people[1],)), ("emp-2", ())):
            page = await unit.people.page(gallery.workspace, gallery.id, limit=10, after=None, external_id=external_id)
            assert page.items == found

    async def test_all_of_a_person_goes_with_them(
        self, begin: Begin, unit: Unit, database: Database, gallery: Gallery, person: Person
    ) -> None:
        bystander = await kept_person(begin, gallery)
        merged = await kept_person(begin, gallery)
        merged_before = await kept_person(begin, gallery)
        theirs: dict[PersonId, list[ReferenceId]] = {}
        for somebody in (person, bystander, merged, merged_before):
            theirs[somebody.id] = [new.reference.id for new in await kept_references(begin, somebody, 2)]
            await unit.answers.keep(
                gallery.workspace, str(somebody.id), an_answer(gallery.workspace), person=somebody.id, expires_at=NOW
            )
        for source, target in ((merged_before, merged), (merged, person)):
            await unit.references.move(gallery.workspace, gallery.id, source=source.id, target=target.id, back=False)
            await unit.people.save(replace(source, merged_into=target.id, version=2))
        gone = await unit.people.remove(gallery.workspace, gallery.id, person.id)
        assert gone == sorted(theirs[person.id] + theirs[merged.id] + theirs[merged_before.id])
        await unit.transaction.commit()
        assert await rows(database) == {"people": 1, "data_keys": 1, "references": 2, "answers": 1}
        assert (await unit.references.page(gallery.workspace, gallery.id, limit=9, after=None)).items[
            0
        ].person == bystander.id

    async def test_a_reference_that_another_has_goes_with_the_key_that_opens_it(
        self, begin: Begin, unit: Unit, gallery: Gallery, person: Person
    ) -> None:
        other = await kept_person(begin, gallery)
        [moved] = await kept_references(begin, other, 1)
        await unit.references.move(gallery.workspace, gallery.id, source=other.id, target=person.id, back=False)
        assert await unit.people.remove(gallery.workspace, gallery.id, other.id) == [moved.reference.id]

    async def test_nobody_is_removed_twice(self, unit: Unit, person: Person) -> None:
        await unit.people.remove(person.workspace, person.gallery, person.id)
        with pytest.raises(PersonNotFound):
            await unit.people.remove(person.workspace, person.gallery, person.id)


class TestReferences:
    async def test_references_come_back_as_they_were(self, begin: Begin, unit: Unit, person: Person) -> None:
        made = await kept_references(begin, person, 3)
        page = await unit.references.page(person.workspace, person.gallery, limit=10, after=None)
        assert page.items == tuple(new.reference for new in made)

    async def test_no_references_are_added_without_a_word(self, unit: Unit) -> None:
        await unit.references.add([])

    async def test_the_key_is_the_persons(self, unit: Unit, gallery: Gallery) -> None:
        person, key = a_person(gallery), a_key(gallery.workspace)
        await unit.people.add(person, key)
        assert await unit.references.key_of(gallery.workspace, person.id) == key

    async def test_nothing_is_added_to_a_person_who_is_gone(self, begin: Begin, person: Person) -> None:
        async with begin() as unit:
            key = await unit.references.key_of(person.workspace, person.id)
            await unit.people.remove(person.workspace, person.gallery, person.id)
            await unit.transaction.commit()
            with pytest.raises(PersonNotFound):
                await unit.references.add([a_reference(person, key)])
            await unit.transaction.rollback()
            with pytest.raises(PersonNotFound):
                await unit.references.key_of(person.workspace, person.id)

    async def test_nothing_is_added_under_another_persons_key(
        self, begin: Begin, unit: Unit, gallery: Gallery, person: Person
    ) -> None:
        other = await kept_person(begin, gallery)
        foreign = await unit.references.key_of(gallery.workspace, other.id)
        with pytest.raises(PersonNotFound):
            await unit.references.add([a_reference(person, foreign)])

    async def test_nothing_crosses_a_workspace(
        self, begin: Begin, unit: Unit, person: Person, stranger: WorkspaceId
    ) -> None:
        [new] = await kept_references(begin, person, 1)
        assert (await unit.references.page(stranger, person.gallery, limit=9, after=None)).items == ()
        with pytest.raises(ReferenceNotFound):
            await unit.references.remove(stranger, person.gallery, new.reference.id)
        moved = await unit.references.move(stranger, person.gallery, source=person.id, target=person.id, back=False)
        assert moved == []
        with pytest.raises(PersonNotFound):
            await unit.references.add([a_reference(replace(person, workspace=stranger), new.key)])

    async def test_pages_can_be_of_one_person_or_one_reference(
        self, begin: Begin, unit: Unit, gallery: Gallery, person: Person
    ) -> None:
        other = await kept_person(begin, gallery)
        theirs = [new.reference for new in await kept_references(begin, other, 2)]
        ours = [new.reference for new in await kept_references(begin, person, 3)]
        where = gallery.workspace, gallery.id
        first = await unit.references.page(*where, limit=2, after=None, person=person.id)
        rest = await unit.references.page(*where, limit=2, after=first.next_after, person=person.id)
        assert [*first.items, *rest.items] == ours
        assert (first.next_after, rest.next_after) == (ours[1].id, None)
        one = await unit.references.page(*where, limit=2, after=None, reference=theirs[1].id)
        assert one.items == (theirs[1],)
        neither = await unit.references.page(*where, limit=2, after=None, person=person.id, reference=theirs[1].id)
        assert neither.items == ()

    async def test_a_removed_reference_says_what_it_was(self, begin: Begin, unit: Unit, person: Person) -> None:
        first, second = await kept_references(begin, person, 2)
        removed = await unit.references.remove(person.workspace, person.gallery, first.reference.id)
        assert removed == first.reference
        page = await unit.references.page(person.workspace, person.gallery, limit=10, after=None)
        assert page.items == (second.reference,)
        with pytest.raises(ReferenceNotFound):
            await unit.references.remove(person.workspace, person.gallery, first.reference.id)

    async def test_a_merge_can_be_undone(self, begin: Begin, unit: Unit, gallery: Gallery, person: Person) -> None:
        other, third = await kept_person(begin, gallery), await kept_person(begin, gallery)
        where = gallery.workspace, gallery.id
        ours = [new.reference.id for new in await kept_references(begin, person, 2)]
        theirs = [new.reference.id for new in await kept_references(begin, other, 2)]
        thirds = [new.reference.id for new in await kept_references(begin, third, 1)]
        assert await unit.references.move(*where, source=third.id, target=other.id, back=False) == thirds
        moved = await unit.references.move(*where, source=other.id, target=person.id, back=False)
        assert moved == [*theirs, *thirds]
        merged = await unit.references.page(*where, limit=9, after=None, person=person.id)
        assert [reference.id for reference in merged.items] == [*ours, *theirs, *thirds]
        assert await unit.references.move(*where, source=person.id, target=other.id, back=True) == theirs
        assert await unit.references.move(*where, source=person.id, target=other.id, back=True) == []
        assert await unit.references.move(*where, source=person.id, target=third.id, back=True) == thirds

    async def test_who_was_merged_into_somebody_goes_back_with_them(
        self, begin: Begin, unit: Unit, gallery: Gallery, person: Person
    ) -> None:
        other, third, fourth = [await kept_person(begin, gallery) for _ in range(3)]
        where = gallery.workspace, gallery.id
        brought = []
        for source, target in ((fourth, third), (third, other), (other, person)):
            brought += [new.reference.id for new in await kept_references(begin, source, 1)]
            await unit.references.move(*where, source=source.id, target=target.id, back=False)
            await unit.people.save(replace(source, merged_into=target.id, version=2))
        await kept_references(begin, person, 1)
        assert await unit.references.move(*where, source=person.id, target=other.id, back=True) == brought

    async def test_references_stay_sealed_with_the_key_they_were_enrolled_under(
        self, begin: Begin, unit: Unit, gallery: Gallery, person: Person
    ) -> None:
        other = await kept_person(begin, gallery)
        [new] = await kept_references(begin, other, 1)
        await unit.references.move(gallery.workspace, gallery.id, source=other.id, target=person.id, back=False)
        await unit.notes.note(gallery.workspace, [new.reference.id], space=SPACE, due=NOW)
        pending = await locked(unit, gallery.workspace, new.reference.id)
        assert pending is not None
        assert (pending.person, pending.key, pending.template) == (person.id, new.key, new.template)


class TestReconciliations:
    async def test_a_note_is_locked_and_read_with_its_reference(self, begin: Begin, unit: Unit, person: Person) -> None:
        [new] = await kept_references(begin, person, 1)
        await unit.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
        pending = await locked(unit, person.workspace, new.reference.id)
        assert pending is not None
        assert (pending.attempts, pending.space) == (0, SPACE)
        assert (pending.gallery, pending.person) == (person.gallery, person.id)
        assert (pending.key, pending.template) == (new.key, new.template)

    async def test_a_note_outlives_its_reference(self, begin: Begin, unit: Unit, person: Person) -> None:
        [new] = await kept_references(begin, person, 1)
        await unit.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
        await unit.people.remove(person.workspace, person.gallery, person.id)
        pending = await locked(unit, person.workspace, new.reference.id)
        assert pending is not None
        assert (pending.gallery, pending.person, pending.key, pending.template) == (None, None, None, None)
        await unit.notes.done(person.workspace, [new.reference.id])
        assert await unit.notes.lock(person.workspace, [new.reference.id]) == {}

    async def test_nothing_is_noted_without_a_word(self, unit: Unit, workspace: WorkspaceId) -> None:
        await unit.notes.note(workspace, [], space=SPACE, due=NOW)
        assert await unit.notes.due(NOW, limit=10) == []

    async def test_noted_twice_is_noted_once_and_earlier(self, unit: Unit, workspace: WorkspaceId) -> None:
        first, second = ReferenceId(IDS.new()), ReferenceId(IDS.new())
        await unit.notes.note(workspace, [first, first], space=SPACE, due=NOW + timedelta(hours=2))
        await unit.notes.note(workspace, [second, first], space=SPACE, due=NOW)
        await unit.notes.note(workspace, [first], space=SPACE, due=NOW + timedelta(hours=1))
        assert await unit.notes.due(NOW, limit=10) == [(workspace, first), (workspace, second)]

    async def test_what_is_due_comes_oldest_first_from_all_workspaces(
        self, unit: Unit, workspace: WorkspaceId, stranger: WorkspaceId
    ) -> None:
        references = [ReferenceId(IDS.new()) for _ in range(4)]
        for minutes, (owner, reference) in enumerate(
            zip([stranger, workspace, stranger, workspace], reversed(references), strict=True)
        ):
            await unit.notes.note(owner, [reference], space=SPACE, due=NOW + timedelta(minutes=minutes))
        due = await unit.notes.due(NOW + timedelta(minutes=2), limit=10)
        assert due == [(stranger, references[3]), (workspace, references[2]), (stranger, references[1])]
        assert await unit.notes.due(NOW + timedelta(minutes=2), limit=1) == due[:1]

    async def test_done_forgets_the_note_and_marks_the_reference(
        self, begin: Begin, unit: Unit, person: Person
    ) -> None:
        one, other = await kept_references(begin, person, 2)
        ids = [one.reference.id, other.reference.id]
        await unit.notes.note(person.workspace, ids, space=SPACE, due=NOW)
        await unit.notes.done(person.workspace, [ids[0]])
        assert await unit.notes.due(NOW, limit=10) == [(person.workspace, ids[1])]
        page = await unit.references.page(person.workspace, person.gallery, limit=10, after=None)
        assert [reference.searchable for reference in page.items] == [True, False]

    async def test_what_the_index_that_answers_has_is_searchable_whatever_else_failed(
        self, begin: Begin, unit: Unit, person: Person
    ) -> None:
        ids = [new.reference.id for new in await kept_references(begin, person, 2)]
        await unit.notes.note(person.workspace, ids, space=SPACE, due=NOW)
        later = NOW + timedelta(hours=1)
        for reference, searchable in zip(ids, (True, False), strict=True):
            await unit.notes.postpone(person.workspace, reference, due=later, error="down", searchable=searchable)
        assert await unit.notes.due(later, limit=10) == [(person.workspace, one) for one in ids]
        page = await unit.references.page(person.workspace, person.gallery, limit=10, after=None)
        assert [reference.searchable for reference in page.items] == [True, False]

    async def test_a_try_that_failed_is_counted_and_put_off(self, unit: Unit, workspace: WorkspaceId) -> None:
        reference = ReferenceId(IDS.new())
        await unit.notes.note(workspace, [reference], space=SPACE, due=NOW)
        for attempt in (1, 2):
            due = NOW + timedelta(hours=attempt)
            await unit.notes.postpone(workspace, reference, due=due, error="down", searchable=False)
            pending = await locked(unit, workspace, reference)
            assert pending is not None
            assert pending.attempts == attempt
        assert await unit.notes.due(NOW + timedelta(hours=1), limit=10) == []
        assert await unit.notes.due(NOW + timedelta(hours=2), limit=10) == [(workspace, reference)]

    async def test_another_workspaces_note_is_not_found(
        self, begin: Begin, unit: Unit, person: Person, stranger: WorkspaceId
    ) -> None:
        [new] = await kept_references(begin, person, 1)
        await unit.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
        assert await unit.notes.lock(stranger, [new.reference.id]) == {}
        await unit.notes.done(stranger, [new.reference.id])
        await unit.notes.postpone(stranger, new.reference.id, due=NOW + timedelta(1), error="theirs", searchable=True)
        assert await unit.notes.due(NOW, limit=10) == [(person.workspace, new.reference.id)]
        page = await unit.references.page(person.workspace, person.gallery, limit=10, after=None)
        assert not page.items[0].searchable

    async def test_one_process_at_a_time_reconciles_a_reference(self, begin: Begin, unit: Unit, person: Person) -> None:
        [new] = await kept_references(begin, person, 1)
        await unit.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
        await unit.transaction.commit()
        async with begin() as other:
            assert await locked(other, person.workspace, new.reference.id) is not None
            assert await locked(unit, person.workspace, new.reference.id) is None
        assert await locked(unit, person.workspace, new.reference.id) is not None

    async def test_what_is_held_is_told_apart_from_what_is_not_noted(
        self, begin: Begin, unit: Unit, person: Person
    ) -> None:
        ids = [new.reference.id for new in await kept_references(begin, person, 4)]
        noted, note_held, reference_held, _not_noted = ids
        await unit.notes.note(person.workspace, [noted, note_held, reference_held], space=SPACE, due=NOW)
        await unit.transaction.commit()
        async with begin() as sweep, begin() as request:
            await sweep.notes.lock(person.workspace, [note_held])
            await request.references.remove(person.workspace, person.gallery, reference_held)
            found = await unit.notes.lock(person.workspace, ids)
        assert {reference: pending is None for reference, pending in found.items()} == {
            noted: False,
            note_held: True,
            reference_held: True,
        }

    async def test_as_many_notes_as_a_statement_has_no_parameters_for(self, unit: Unit, workspace: WorkspaceId) -> None:
        references = [ReferenceId(IDS.new()) for _ in range(33_000)]
        await unit.notes.note(workspace, references, space=SPACE, due=NOW)
        assert len(await unit.notes.lock(workspace, references)) == len(references)
        await unit.notes.done(workspace, references)
        assert await unit.notes.due(NOW, limit=1) == []

    async def test_a_locked_reference_is_removed_after_the_lock_ends(
        self, begin: Begin, database: Database, person: Person
    ) -> None:
        [new] = await kept_references(begin, person, 1)
        async with begin() as sweep, begin() as request:
            await sweep.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
            await sweep.transaction.commit()
            assert await locked(sweep, person.workspace, new.reference.id) is not None
            removing = asyncio.create_task(
                request.references.remove(person.workspace, person.gallery, new.reference.id)
            )
            await somebody_waits(database)
            await sweep.notes.done(person.workspace, [new.reference.id])
            await sweep.transaction.commit()
            assert (await removing).searchable

    @pytest.mark.parametrize("order", ["note first", "reference first"])
    async def test_the_sweep_passes_over_what_a_request_removes(self, begin: Begin, person: Person, order: str) -> None:
        [new] = await kept_references(begin, person, 1)
        this = person.workspace, new.reference.id
        async with begin() as request, begin() as sweep:
            await request.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
            await request.transaction.commit()
            if order == "note first":
                await request.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
                await request.people.remove(person.workspace, person.gallery, person.id)
                assert await locked(sweep, *this) is None
            else:
                await request.references.remove(person.workspace, person.gallery, new.reference.id)
                assert await locked(sweep, *this) is None
                await sweep.transaction.rollback()
                await request.notes.note(person.workspace, [new.reference.id], space=SPACE, due=NOW)
            await request.transaction.commit()
            await sweep.transaction.rollback()
            pending = await locked(sweep, *this)
            assert pending is not None
            assert pending.template is None

    async def test_bulk_notes_of_the_same_references_do_not_lock_in_a_circle(
        self, begin: Begin, workspace: WorkspaceId
    ) -> None:
        references = [ReferenceId(IDS.new()) for _ in range(50)]

        async def note(order: list[ReferenceId]) -> None:
            async with begin() as unit:
                await unit.notes.note(workspace, order, space=SPACE, due=NOW)
                await unit.transaction.commit()

        for _ in range(5):
            await asyncio.gather(note(references), note(references[::-1]), note(references), note(references[::-1]))


class TestApiKeys:
    @pytest.fixture
    def key(self, workspace: WorkspaceId) -> ApiKey:
        return ApiKey(
            id=ApiKeyId(IDS.new()),
            workspace=workspace,
            name="door",
            prefix="fp_abc",
            scopes=frozenset({Scope.SEARCH, Scope.ENROL}),
            created_at=NOW,
            expires_at=NOW + timedelta(days=1),
            revoked_at=NOW + timedelta(hours=1),
        )

    async def test_a_committed_key_is_found_by_its_digest(self, unit: Unit, key: ApiKey, database: Database) -> None:
        credentials = SqlCredentials(database.reads)
        await unit.keys.add(key, b"d" * 32)
        assert await credentials.api_key(b"d" * 32) is None
        await unit.transaction.commit()
        assert await credentials.api_key(b"d" * 32) == key
        assert await credentials.api_key(b"e" * 32) is None

    async def test_keys_of_a_workspace_come_oldest_first(self, unit: Unit, key: ApiKey, stranger: WorkspaceId) -> None:
        younger = replace(key, id=ApiKeyId(IDS.new()), expires_at=None, revoked_at=None)
        await unit.keys.add(younger, b"2")
        await unit.keys.add(key, b"1")
        await unit.keys.add(replace(key, id=ApiKeyId(IDS.new()), workspace=stranger), b"3")
        page = await unit.keys.page(key.workspace, limit=1, after=None)
        assert page.items == (key,)
        assert (await unit.keys.page(key.workspace, limit=1, after=page.next_after)).items == (younger,)


class TestAnswers:
    async def test_an_answer_is_found_until_it_expires(self, unit: Unit, workspace: WorkspaceId) -> None:
        answer, expires_at = an_answer(workspace), NOW + timedelta(hours=24)
        assert await unit.answers.find(workspace, "key", now=NOW) is None
        assert await unit.answers.keep(workspace, "key", answer, person=None, expires_at=expires_at)
        assert await unit.answers.find(workspace, "key", now=NOW) == answer
        assert await unit.answers.find(workspace, "other", now=NOW) is None
        assert await unit.answers.find(workspace, "key", now=expires_at) is None

    async def test_the_first_answer_stays_and_an_expired_one_goes(self, unit: Unit, workspace: WorkspaceId) -> None:
        day = timedelta(hours=24)
        first, second = an_answer(workspace, b"first"), an_answer(workspace, b"second")
        assert await unit.answers.keep(workspace, "key", first, person=None, expires_at=NOW + day)
        just_before = NOW + day - timedelta(microseconds=1)
        assert not await unit.answers.keep(workspace, "key", second, person=None, expires_at=just_before + day)
        assert await unit.answers.find(workspace, "key", now=just_before) == first
        assert await unit.answers.keep(workspace, "key", second, person=None, expires_at=NOW + 2 * day)
        assert await unit.answers.find(workspace, "key", now=NOW + day) == second

    async def test_keys_of_two_workspaces_do_not_meet(
        self, unit: Unit, workspace: WorkspaceId, stranger: WorkspaceId
    ) -> None:
        expires_at = NOW + timedelta(hours=24)
        ours, theirs = an_answer(workspace, b"ours"), an_answer(stranger, b"theirs")
        assert await unit.answers.keep(workspace, "key", ours, person=None, expires_at=expires_at)
        assert await unit.answers.keep(stranger, "key", theirs, person=None, expires_at=expires_at)
        assert await unit.answers.find(workspace, "key", now=NOW) == ours
        assert await unit.answers.find(stranger, "key", now=NOW) == theirs

    @pytest.mark.parametrize("ends_with", ["commit", "rollback"])
    async def test_the_same_call_waits_for_the_one_that_has_not_ended(
        self, begin: Begin, database: Database, workspace: WorkspaceId, ends_with: str
    ) -> None:
        expires_at = NOW + timedelta(hours=24)
        async with begin() as first, begin() as second:
            keep: Callable[[Unit], Awaitable[bool]] = lambda unit: unit.answers.keep(  # noqa: E731 - said twice below
                workspace, "key", an_answer(workspace), person=None, expires_at=expires_at
            )
            assert await keep(first)
            keeping = asyncio.ensure_future(keep(second))
            await somebody_waits(database)
            assert not keeping.done()
            await (first.transaction.commit() if ends_with == "commit" else first.transaction.rollback())
            assert await keeping is (ends_with == "rollback")

    async def test_an_answer_about_somebody_who_is_gone_is_not_kept(self, unit: Unit, workspace: WorkspaceId) -> None:
        with pytest.raises(PersonNotFound):
            await unit.answers.keep(workspace, "key", an_answer(workspace), person=PersonId(IDS.new()), expires_at=NOW)

    async def test_what_has_expired_is_purged(self, unit: Unit, workspace: WorkspaceId) -> None:
        for hours in range(4):
            await unit.answers.keep(
                workspace, str(hours), an_answer(workspace), person=None, expires_at=NOW + timedelta(hours=hours)
            )
        assert await unit.answers.purge(NOW + timedelta(hours=2)) == 3
        assert await unit.answers.purge(NOW + timedelta(hours=2)) == 0
        assert await unit.answers.find(workspace, "3", now=NOW) is not None


class TestTables:
    def test_every_table_but_those_of_the_whole_installation_is_keyed_by_workspace(self) -> None:
        keyed = {table.name for table in METADATA.tables.values() if "workspace_id" in table.primary_key.columns}
        assert {table.name for table in METADATA.tables.values()} - keyed == {
            "installation",
            "index_state",
            "key_ring",
            "ledger_mark",
            "login_failures",
            "one_time_links",
            "refresh_tokens",
            "sessions",
            "signing_keys",
            "users",
            "workspaces",
        }

    def test_every_foreign_key_between_a_workspaces_rows_carries_the_workspace(self) -> None:
        for table in METADATA.tables.values():
            for constraint in table.foreign_key_constraints:
                targets = {element.target_fullname for element in constraint.elements}
                assert targets & {"workspaces.id", "users.id", "sessions.id"} or "workspace_id" in constraint.columns, (
                    constraint.name
                )

    def test_every_cascade_and_check_of_a_foreign_key_finds_an_index(self) -> None:
        for table in METADATA.tables.values():
            indexes = [list(table.primary_key.columns.keys())]
            indexes += [list(index.columns.keys()) for index in table.indexes]
            indexes += [
                list(constraint.columns.keys())
                for constraint in table.constraints
                if constraint.__visit_name__ == "unique_constraint"
            ]
            for constraint in table.foreign_key_constraints:
                wanted = set(constraint.columns.keys())
                # One column less is enough where that one selects as much.
                assert any(len(wanted & set(index[: len(wanted)])) >= max(1, len(wanted) - 1) for index in indexes)
