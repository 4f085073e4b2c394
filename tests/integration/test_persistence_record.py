"""Reading without a transaction, and what happens when the database does not answer."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from os import urandom

import pytest
from sqlalchemy import text

from adapters.persistence import schema
from adapters.persistence.connection import SqlConnection
from adapters.persistence.counts import Counts
from adapters.persistence.database import Database, engine
from adapters.persistence.errors import translated
from adapters.persistence.gallery_repository import SqlGalleryRepository
from adapters.persistence.person_repository import SqlPersonRepository
from adapters.persistence.ping import DatabasePing
from adapters.persistence.record import SqlRecord
from adapters.persistence.reference_repository import SqlReferenceRepository
from adapters.persistence.schema_ping import SchemaPing
from adapters.persistence.workspace_repository import SqlWorkspaceRepository
from adapters.system.id_generator import UuidV7Generator
from application.ports.cipher import DataKeyId
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.record import SealedTemplate
from application.ports.repositories import NewReference
from domain.embedding import SpaceId
from domain.enrolment import Reference, ReferenceId
from domain.errors import GalleryNotFound, PersonMerged, PersonNotFound
from domain.face import Box
from domain.gallery import Gallery, GalleryId, Policy
from domain.person import Person, PersonId
from domain.quality import Quality
from domain.workspace import Workspace, WorkspaceId
from tests.trail import CIPHER, KEYED_HASH

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPACE = SpaceId("open@1:0123456789ab")
IDS = UuidV7Generator()


class Stock:
    """A gallery that is filled, with everything committed at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.workspace = WorkspaceId(IDS.new())
        self.gallery = Gallery(
            id=GalleryId(IDS.new()),
            workspace=self.workspace,
            name="default",
            space=SPACE,
            policy=Policy(),
            created_at=NOW,
            updated_at=NOW,
            version=1,
        )

    async def begin(self) -> None:
        async with self._connection() as connection:
            await SqlWorkspaceRepository(connection).add(
                Workspace(id=self.workspace, name=str(self.workspace), created_at=NOW)
            )
            await SqlGalleryRepository(connection).add(self.gallery)

    async def person(self, *, references: int, external_id: str | None = None) -> tuple[Person, list[SealedTemplate]]:
        person = Person(
            id=PersonId(IDS.new()),
            workspace=self.workspace,
            gallery=self.gallery.id,
            external_id=external_id,
            metadata={},
            created_at=NOW,
            updated_at=NOW,
            version=1,
        )
        key = CIPHER.new_key(DataKeyId(IDS.new()), workspace=self.workspace)
        new = [
            NewReference(
                reference=Reference(
                    id=ReferenceId(IDS.new()),
                    workspace=self.workspace,
                    gallery=self.gallery.id,
                    person=person.id,
                    space=SPACE,
                    quality=Quality(1.0, ()),
                    box=Box(0.0, 0.0, 1.0, 1.0),
                    filename=None,
                    image_key=None,
                    image_type=None,
                    searchable=True,
                    created_at=NOW,
                ),
                key=key,
                template=urandom(541),
            )
            for _ in range(references)
        ]
        async with self._connection() as connection:
            await SqlPersonRepository(connection, CIPHER, KEYED_HASH).add(person, key)
            await SqlReferenceRepository(connection, CIPHER, KEYED_HASH).add(new)
        return person, [
            SealedTemplate(
                reference=one.reference.id,
                person=person.id,
                key=key,
                space=SPACE,
                template=one.template,
                read_external_id=lambda: external_id,
            )
            for one in new
        ]

    async def merge(self, source: Person, target: Person) -> None:
        async with self._connection() as connection:
            await SqlPersonRepository(connection, CIPHER, KEYED_HASH).save(
                replace(source, merged_into=target.id, version=2)
            )
            await SqlReferenceRepository(connection, CIPHER, KEYED_HASH).move(
                self.workspace, self.gallery.id, source=source.id, target=target.id, back=False
            )

    def _connection(self) -> "Committed":
        return Committed(SqlConnection(self._database.transactions))


class Committed:
    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def __aenter__(self) -> SqlConnection:
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await (self._connection.commit() if kind is None else self._connection.aclose())


@pytest.fixture
async def record(database: Database) -> AsyncIterator[SqlRecord]:
    record = SqlRecord(database.reads, CIPHER, KEYED_HASH)
    yield record
    await record.aclose()


@pytest.fixture
async def stock(database: Database) -> Stock:
    stock = Stock(database)
    await stock.begin()
    return stock


@pytest.fixture
async def stranger(database: Database) -> Stock:
    stock = Stock(database)
    await stock.begin()
    return stock


class TestRecord:
    async def test_a_gallery_is_read_by_id_and_by_name(self, record: SqlRecord, stock: Stock, stranger: Stock) -> None:
        assert await record.gallery(stock.workspace, stock.gallery.id) == stock.gallery
        assert await record.gallery(stock.workspace, "default") == stock.gallery
        for workspace, gallery in (
            (stranger.workspace, stock.gallery.id),
            (stock.workspace, "other"),
            (stock.workspace, GalleryId(IDS.new())),
        ):
            with pytest.raises(GalleryNotFound):
                await record.gallery(workspace, gallery)

    async def test_all_templates_of_a_person_are_read_by_id_and_by_external_id(
        self, record: SqlRecord, stock: Stock
    ) -> None:
        person, sealed = await stock.person(references=3, external_id="emp-17")
        await stock.person(references=2)
        for gallery in (stock.gallery.id, "default"):
            for named in (person.id, "emp-17"):
                assert await record.templates_of(stock.workspace, gallery, named) == (stock.gallery, sealed)

    async def test_a_person_without_references_has_no_templates(self, record: SqlRecord, stock: Stock) -> None:
        person, _ = await stock.person(references=0)
        assert await record.templates_of(stock.workspace, stock.gallery.id, person.id) == (stock.gallery, [])

    async def test_an_unknown_person_is_not_found(self, record: SqlRecord, stock: Stock, stranger: Stock) -> None:
        person, _ = await stock.person(references=1, external_id="emp-17")
        for workspace, gallery, named in (
            (stock.workspace, stock.gallery.id, PersonId(IDS.new())),
            (stock.workspace, stock.gallery.id, "unknown"),
            (stranger.workspace, stranger.gallery.id, person.id),
            (stranger.workspace, "default", "emp-17"),
        ):
            with pytest.raises(PersonNotFound):
                await record.templates_of(workspace, gallery, named)
        for workspace, gallery in (
            (stranger.workspace, stock.gallery.id),
            (stock.workspace, stranger.gallery.id),
            (stock.workspace, "other"),
        ):
            with pytest.raises(GalleryNotFound):
                await record.templates_of(workspace, gallery, person.id)

    async def test_a_merged_person_is_named_as_such_and_their_templates_are_the_others(
        self, record: SqlRecord, stock: Stock
    ) -> None:
        person, ours = await stock.person(references=1, external_id="emp-17")
        other, theirs = await stock.person(references=1, external_id="emp-18")
        await stock.merge(other, person)
        with pytest.raises(PersonMerged, match=str(person.id)):
            await record.templates_of(stock.workspace, stock.gallery.id, "emp-18")
        _, found = await record.templates_of(stock.workspace, stock.gallery.id, person.id)
        assert found == [*ours, replace(theirs[0], person=person.id)]
        assert {one.external_id for one in found} == {"emp-17"}

    async def test_templates_are_read_of_those_references_that_are_in_the_gallery(
        self, record: SqlRecord, stock: Stock, stranger: Stock
    ) -> None:
        _, ours = await stock.person(references=3)
        _, theirs = await stranger.person(references=1)
        asked = [ours[2].reference, theirs[0].reference, ReferenceId(IDS.new()), ours[0].reference]
        found = await record.templates(stock.workspace, stock.gallery.id, asked)
        assert sorted(found, key=lambda one: one.reference) == [ours[0], ours[2]]
        assert await record.templates(stock.workspace, stock.gallery.id, []) == []
        assert await record.templates(stranger.workspace, stock.gallery.id, asked) == []

    async def test_all_templates_of_a_gallery_are_walked_through_by_reference_id(
        self, record: SqlRecord, stock: Stock, stranger: Stock
    ) -> None:
        ours = [one for _ in range(3) for one in (await stock.person(references=2))[1]]
        await stranger.person(references=1)
        where = stock.workspace, stock.gallery.id
        first = await record.all_templates(*where, after=None, limit=4)
        rest = await record.all_templates(*where, after=first[-1].reference, limit=4)
        assert [*first, *rest] == ours
        assert await record.all_templates(*where, after=ours[-1].reference, limit=4) == []

    async def test_references_are_counted_by_gallery(self, record: SqlRecord, stock: Stock, stranger: Stock) -> None:
        await stock.person(references=3)
        await stock.person(references=2)
        assert await record.references_in(stock.workspace, stock.gallery.id) == 5
        assert await record.references_in(stranger.workspace, stranger.gallery.id) == 0
        assert await record.references_in(stranger.workspace, stock.gallery.id) == 0

    async def test_the_number_of_references_follows_within_a_second(self, record: SqlRecord, stock: Stock) -> None:
        where = stock.workspace, stock.gallery.id
        assert await record.references_in(*where) == 0
        await stock.person(references=3)
        await asyncio.sleep(1.0)  # the port's own promise, and nothing tells when it comes true
        assert await record.references_in(*where) == 3

    async def test_what_is_committed_is_seen_at_once(self, record: SqlRecord, stock: Stock) -> None:
        person, before = await stock.person(references=1)
        other, theirs = await stock.person(references=1)
        assert (await record.templates_of(stock.workspace, stock.gallery.id, person.id))[1] == before
        await stock.merge(other, person)
        _, after = await record.templates_of(stock.workspace, stock.gallery.id, person.id)
        assert len(after) == len(before + theirs)

    async def test_counting_and_reading_need_no_other_pass_over_the_table(
        self, database: Database, stock: Stock
    ) -> None:
        for _ in range(20):
            await stock.person(references=3)
        async with database.reads.connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))
            await connection.execute(text("SET enable_seqscan = off"))
            plan = "\n".join(
                (
                    await connection.execute(
                        text(
                            'EXPLAIN SELECT count(*) FROM "references" WHERE workspace_id = :workspace'
                            " AND gallery_id = :gallery"
                        ),
                        {"workspace": stock.workspace, "gallery": stock.gallery.id},
                    )
                ).scalars()
            )
        assert "Index Only Scan using ix_references_workspace_id_gallery_id_id" in plan


class TestCounts:
    async def test_many_who_ask_at_once_are_counted_for_once(self) -> None:
        asked: list[str] = []
        go = asyncio.Event()

        async def count(key: str) -> int:
            asked.append(key)
            await go.wait()
            return len(asked)

        counts = Counts(count)
        waiting = [asyncio.create_task(counts.of("a")) for _ in range(10)]
        other = asyncio.create_task(counts.of("b"))
        while len(asked) < 2:  # noqa: ASYNC110 - until both have begun
            await asyncio.sleep(0)
        go.set()
        assert set(await asyncio.gather(*waiting)) == {2}
        assert await other == 2
        assert sorted(asked) == ["a", "b"]

    async def test_one_who_gives_up_does_not_take_the_count_from_the_others(self) -> None:
        go = asyncio.Event()

        async def count(_: str) -> int:
            await go.wait()
            return 7

        counts = Counts(count)
        impatient, patient = (asyncio.create_task(counts.of("a")) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        go.set()
        assert await patient == 7

    async def test_a_failure_is_told_and_counted_again(self) -> None:
        outcomes = iter([PortUnavailable("database", "gone"), 7])

        async def count(_: str) -> int:
            outcome = next(outcomes)
            if isinstance(outcome, PortUnavailable):
                raise outcome
            return outcome

        counts = Counts(count)
        with pytest.raises(PortUnavailable):
            await counts.of("a")
        assert await counts.of("a") == 7
        await counts.aclose()


class TestFailures:
    async def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
            database = Database.at(f"postgresql://facepass@127.0.0.1:{taken.getsockname()[1]}/facepass?sslmode=disable")
            for call in (
                DatabasePing(database.pings).ping(),
                SqlRecord(database.reads, CIPHER, KEYED_HASH).gallery(WorkspaceId(IDS.new()), "default"),
                SqlWorkspaceRepository(SqlConnection(database.transactions)).named("ours"),
            ):
                with pytest.raises(PortUnavailable) as told:
                    await call
                assert told.value.port == "database"
                assert "127.0.0.1" not in told.value.message
            await database.aclose()

    async def test_a_server_that_says_nothing_is_unavailable(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"postgresql://facepass@127.0.0.1:{silent.getsockname()[1]}/facepass?sslmode=disable"
            database = Database.at(url, timeout=0.2)
            with pytest.raises(PortUnavailable):
                await DatabasePing(database.pings).ping()
            await database.aclose()

    async def test_a_wrong_password_or_database_is_rejected(self, database_url: str) -> None:
        for wrong in (database_url.replace("facepass:", "facepass:x"), database_url.replace("/test_", "/other_")):
            database = Database.at(wrong)
            with pytest.raises(PortRejected) as told:
                await DatabasePing(database.pings).ping()
            assert "facepass" not in told.value.message
            await database.aclose()

    async def test_ping_answers_where_the_database_does(self, database: Database) -> None:
        ping = DatabasePing(database.pings)
        await ping.ping()
        assert ping.name == "database"

    async def test_a_connection_that_the_server_ended_is_replaced(
        self, database: Database, record: SqlRecord, stock: Stock
    ) -> None:
        connection = SqlConnection(database.transactions)
        galleries = SqlGalleryRepository(connection)
        assert await galleries.get(stock.workspace, "default") == stock.gallery
        assert await record.gallery(stock.workspace, "default") == stock.gallery
        await end_other_connections(database)
        with pytest.raises(PortUnavailable):  # it was in the middle of a transaction
            await galleries.get(stock.workspace, "default")
        await connection.aclose()
        assert await galleries.get(stock.workspace, "default") == stock.gallery
        await connection.aclose()
        assert await record.gallery(stock.workspace, "default") == stock.gallery

    async def test_a_commit_that_the_server_does_not_take_is_unavailable_and_leaves_nothing(
        self, database: Database
    ) -> None:
        connection = SqlConnection(database.transactions)
        workspaces = SqlWorkspaceRepository(connection)
        await workspaces.add(Workspace(id=WorkspaceId(IDS.new()), name="lost", created_at=NOW))
        await end_other_connections(database)
        with pytest.raises(PortUnavailable):
            await connection.commit()
        assert await workspaces.named("lost") is None
        await connection.aclose()

    async def test_a_command_that_takes_too_long_is_unavailable_and_the_next_one_works(self, database_url: str) -> None:
        pool = engine(database_url, connections=1, timeout=0.2, autocommit=True)
        with pytest.raises(PortUnavailable), translated():
            async with pool.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(30)"))
        with translated():
            async with pool.connect() as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
        await pool.dispose()

    async def test_where_all_connections_are_in_use_the_database_is_busy_and_there(self, database_url: str) -> None:
        database = Database.at(database_url, transactions=1, reads=1, timeout=0.2)
        async with database.transactions.connect(), database.reads.connect():
            for call in (
                SqlWorkspaceRepository(SqlConnection(database.transactions)).named("ours"),
                SqlRecord(database.reads, CIPHER, KEYED_HASH).gallery(WorkspaceId(IDS.new()), "default"),
            ):
                with pytest.raises(PortBusy):
                    await call
            await DatabasePing(database.pings).ping()
            await SchemaPing(database.pings).ping()
        await database.aclose()

    async def test_a_schema_that_waits_for_its_operator_is_told_by_its_code(self, empty_database_url: str) -> None:
        database = Database.at(empty_database_url)
        with pytest.raises(PortUnavailable, match="schema_outdated") as told:
            await SchemaPing(database.pings).ping()
        assert told.value.port == "schema"
        await schema.upgrade(empty_database_url)
        await SchemaPing(database.pings).ping()
        await database.aclose()

    async def test_transactions_that_lock_in_a_circle_are_unavailable(self, database: Database, stock: Stock) -> None:
        people = [(await stock.person(references=0))[0] for _ in range(2)]
        both_hold = asyncio.Barrier(2)

        async def lock(order: list[Person]) -> None:
            connection = SqlConnection(database.transactions)
            try:
                for person in order:
                    await SqlPersonRepository(connection, CIPHER, KEYED_HASH).get(
                        stock.workspace, stock.gallery.id, person.id
                    )
                    if person is order[0]:
                        await both_hold.wait()
            finally:
                await connection.aclose()

        outcomes = await asyncio.gather(lock(people), lock(people[::-1]), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "PortUnavailable"]

    async def test_a_mistake_of_ours_stays_one(self, database: Database) -> None:
        with pytest.raises(Exception, match="syntax error"), translated():
            async with database.reads.connect() as connection:
                await connection.execute(text("SELEC 1"))


async def end_other_connections(database: Database) -> None:
    """Have the server end every connection of this database but the one that asks."""
    pool = engine(database.reads.url.render_as_string(hide_password=False), connections=1, timeout=10.0)
    async with pool.connect() as connection:
        own = await connection.scalar(text("SELECT pg_backend_pid()"))
        others = text(
            "FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user AND pid <> :own"
        )
        await connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"), {"own": own})
        async with asyncio.timeout(30.0):
            while await connection.scalar(text(f"SELECT count(*) {others}"), {"own": own}):
                await connection.rollback()
                await asyncio.sleep(0.01)
    await pool.dispose()
