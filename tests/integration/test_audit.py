import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, delete, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.persistence.audit_batch import REFUSALS, WAITING, SqlAuditBatch
from adapters.persistence.audit_beginnings import SqlChainBeginnings
from adapters.persistence.audit_log import SqlAuditLog
from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.tables import AUDIT_ENTRIES, AUDIT_HEADS, INSTALLATION
from adapters.persistence.transaction import SqlTransaction
from adapters.persistence.workspace_repository import SqlWorkspaceRepository
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.secret import Secret
from adapters.system.clock import SystemClock
from application.ports.audit import AuditFilter
from application.ports.errors import PortBusy, PortUnavailable
from application.use_cases.audit.origin import done_for
from application.use_cases.audit.verify_audit import VerifyAudit
from domain.audit import INSTANCE, ActorKind, AuditAction, AuditEvent, Origin
from domain.audit_chain import ChainReport, Fault, KnownHead
from domain.errors import PortError
from domain.workspace import Workspace, WorkspaceId
from tests.conftest import beside, end_connections, execute
from tests.trail import KEYED_HASH, trail

OURS, THEIRS = WorkspaceId(UUID(int=1)), WorkspaceId(UUID(int=2))


class Unit:
    """One request: its trail and its transaction."""

    def __init__(self, database: Database) -> None:
        self.connection = SqlConnection(database.transactions)
        self.audit: SqlAuditTrail = trail(self.connection)
        self.transaction = SqlTransaction(self.connection, self.audit)


@asynccontextmanager
async def begun(database: Database) -> AsyncIterator[Unit]:
    unit = Unit(database)
    try:
        yield unit
    finally:
        await unit.connection.aclose()


def event(workspace: WorkspaceId = OURS, **values: Any) -> AuditEvent:  # noqa: ANN401 - an event's fields
    return AuditEvent(workspace=workspace, **{"action": AuditAction.PERSON_CREATED, "subject": uuid4(), **values})


async def rows(database: Database, workspace: WorkspaceId = OURS) -> Sequence[Row[Any]]:
    async with database.reads.connect() as connection:
        columns = AUDIT_ENTRIES.c
        found = await connection.execute(
            select(AUDIT_ENTRIES).where(columns.workspace_id == workspace).order_by(columns.number)
        )
        return found.all()


async def test_what_was_noted_is_written_with_the_commit(database: Database) -> None:
    async with begun(database) as unit:
        with done_for(Origin(kind=ActorKind.KEY, actor=UUID(int=7), network="10.1.2.0/24", request="0" * 32)):
            unit.audit.note(event(details={"references": ["a", "b"], "faces": 3, "live": True, "none": None}))
        assert not await rows(database)
        await unit.transaction.commit()
    (row,) = await rows(database)
    assert (row.number, row.actor_kind, row.actor_id, row.network) == (1, "key", UUID(int=7), "10.1.2.0/24")
    assert row.details == {"references": ["a", "b"], "faces": 3, "live": True, "none": None}


async def test_a_rollback_forgets_what_was_noted(database: Database) -> None:
    async with begun(database) as unit:
        unit.audit.note(event())
        await unit.transaction.rollback()
        await unit.transaction.commit()
    assert not await rows(database)


async def test_what_waits_is_written_when_the_batch_is_closed(database: Database) -> None:
    async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
        for number in range(1200):
            batch.note(event(details={"number": number}))
        batch.note(event(INSTANCE))
    assert [row.details["number"] for row in await rows(database)] == list(range(1200))
    assert len(await rows(database, INSTANCE)) == 1


async def written(database: Database, *events: AuditEvent) -> None:
    for one in events:
        async with begun(database) as unit:
            unit.audit.note(one)
            await unit.transaction.commit()


async def made(database: Database) -> WorkspaceId:
    """Make a workspace as all are made, and write a little more into its chain."""
    ours = WorkspaceId(uuid4())
    async with begun(database) as unit:
        await SqlWorkspaceRepository(unit.connection).add(
            Workspace(id=ours, name=str(ours), created_at=datetime.now(UTC))
        )
        for place in (INSTANCE, ours):
            unit.audit.note(event(place, action=AuditAction.WORKSPACE_CREATED, subject=ours))
        await unit.transaction.commit()
    await written(database, *(event(ours) for _ in range(3)))
    return ours


OLD = b"the first master key"


@pytest.fixture
async def older(database: Database) -> None:
    """Let the installation be older than its audit log: its hashing secret is the master key of its first start."""
    async with database.transactions.begin() as connection:
        await connection.execute(insert(INSTALLATION).values(master_key=OLD))


@asynccontextmanager
async def verifying(database: Database) -> AsyncIterator[VerifyAudit]:
    async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
        yield VerifyAudit(
            log=SqlAuditLog(database.reads),
            beginnings=SqlChainBeginnings(database.reads, first_master=OLD),
            batch=batch,
            keyed_hash=KEYED_HASH,
        )


async def checked(database: Database, workspace: WorkspaceId = OURS, known: KnownHead | None = None) -> ChainReport:
    async with verifying(database) as verify:
        return await verify(workspace=workspace, known=known)


@pytest.mark.usefixtures("older")
async def test_one_chain_at_a_time_is_verified(database: Database) -> None:
    await written(database, event(), event(INSTANCE))
    async with verifying(database) as verify:
        found = await asyncio.gather(*(verify(workspace=one) for one in (OURS, INSTANCE, OURS)), return_exceptions=True)
        assert isinstance(found[0], ChainReport)
        assert all(isinstance(one, PortBusy) for one in found[1:])
        assert (await verify(workspace=INSTANCE)).sound


def named(report: ChainReport) -> list[tuple[int, Fault]]:
    return [(one.number, one.fault) for one in report.findings]


@asynccontextmanager
async def superuser(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection whose owner has taken the triggers away."""
    async with database.transactions.begin() as connection:
        await connection.execute(text("ALTER TABLE audit_entries DISABLE TRIGGER ALL"))
        await connection.execute(text("ALTER TABLE audit_heads DISABLE TRIGGER ALL"))
        yield connection


@pytest.mark.usefixtures("older")
class TestAppendOnly:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_entries SET outcome = 'ok'",
            "DELETE FROM audit_entries",
            "TRUNCATE audit_entries",
            "UPDATE audit_heads SET number = 1",
            "UPDATE audit_heads SET workspace_id = '00000000-0000-0000-0000-000000000009'",
            "DELETE FROM audit_heads",
            "TRUNCATE audit_heads",
        ],
    )
    async def test_the_database_refuses_it(self, database: Database, statement: str) -> None:
        await written(database, event(), event())
        with pytest.raises(DBAPIError, match="append-only"):
            async with database.transactions.begin() as connection:
                await connection.execute(text(statement))
        assert (await checked(database)).sound


@pytest.mark.usefixtures("older")
class TestTampering:
    """What whoever may do everything in the database, and has not the key, can do."""

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("at", "at + interval '1 microsecond'"),
            ("at", "'infinity'"),
            ("at", "'294000-01-01'"),
            ("actor_kind", "'cli'"),
            ("actor_id", "gen_random_uuid()"),
            ("network", "'192.0.2.0/24'"),
            ("request_id", "'0123456789abcdef'"),
            ("action", "'nothing.happened'"),
            ("subject_id", "gen_random_uuid()"),
            ("gallery_id", "gen_random_uuid()"),
            ("outcome", "'refused'"),
            ("details", """'{"faces": 4}'"""),
            ("details", """'{"faces": 3.0}'"""),
            ("details", "'[]'"),
            ("details", "'{\"a\": 1e5000}'"),
            ("details", "(repeat('[', 3000) || repeat(']', 3000))::jsonb"),
            ("mac", "decode(repeat('00', 32), 'hex')"),
        ],
    )
    async def test_a_changed_column_is_found(self, database: Database, column: str, value: str) -> None:
        await written(database, *(event(details={"faces": 3}) for _ in range(5)))
        async with superuser(database) as connection:
            await connection.execute(text(f"UPDATE audit_entries SET {column} = {value} WHERE number = 3"))  # noqa: S608 - ours
        assert named(await checked(database))[0] == (3, Fault.CHANGED)

    async def test_one_that_was_removed_is_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(5)))
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_entries WHERE number = 3"))
        assert named(await checked(database)) == [(3, Fault.REMOVED), (4, Fault.UNLINKED)]

    async def test_one_that_was_removed_with_those_behind_renumbered_is_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(6)))
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_entries WHERE number = 3"))
            for number in (4, 5, 6):
                await connection.execute(
                    text("UPDATE audit_entries SET number = number - 1 WHERE number = :it"), {"it": number}
                )
        assert named(await checked(database)) == [(3, Fault.REMOVED), (6, Fault.REMOVED)]

    async def test_one_that_was_put_in_is_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(5)))
        async with superuser(database) as connection:
            for number in (5, 4, 3):
                await connection.execute(
                    text("UPDATE audit_entries SET number = number + 1 WHERE number = :it"), {"it": number}
                )
            await connection.execute(
                text(
                    "INSERT INTO audit_entries SELECT workspace_id, 3, at, actor_kind, actor_id, network, request_id,"
                    " action, subject_id, gallery_id, outcome, details, mac FROM audit_entries WHERE number = 2"
                )
            )
        assert named(await checked(database)) == [(3, Fault.INSERTED), (6, Fault.INSERTED)]

    async def test_one_of_a_number_that_is_taken_is_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(3)))
        async with superuser(database) as connection:
            await connection.execute(text("ALTER TABLE audit_entries DROP CONSTRAINT pk_audit_entries"))
            await connection.execute(text("INSERT INTO audit_entries SELECT * FROM audit_entries WHERE number = 2"))
        assert named(await checked(database)) == [(2, Fault.INSERTED)]

    async def test_two_that_changed_places_are_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(5)))
        async with superuser(database) as connection:
            for before, after in ((2, 100), (4, 2), (100, 4)):
                await connection.execute(
                    text("UPDATE audit_entries SET number = :after WHERE number = :before"),
                    {"before": before, "after": after},
                )
        assert named(await checked(database))[0][0] == 2

    async def test_a_tail_that_was_cut_off_is_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(5)))
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_entries WHERE number > 3"))
        report = await checked(database)
        assert [(one.number, one.until, one.fault) for one in report.findings] == [(4, 5, Fault.REMOVED)]

    async def test_a_head_that_was_set_back_is_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(5)))
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_entries WHERE number > 3"))
            await connection.execute(
                text(
                    "UPDATE audit_heads SET number = 3, mac = (SELECT mac FROM audit_entries e WHERE e.number = 3 AND"
                    " e.workspace_id = audit_heads.workspace_id)"
                )
            )
        assert named(await checked(database)) == [(3, Fault.HEAD)]
        # The service goes on, and does not cover it up.
        await written(database, event())
        assert named(await checked(database)) == [(4, Fault.HEAD)]

    async def test_a_head_that_was_taken_away_is_found_also_after_more_was_written(self, database: Database) -> None:
        await written(database, *(event() for _ in range(5)))
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_heads"))
            await connection.execute(text("DELETE FROM audit_entries WHERE number > 3"))
        assert named(await checked(database)) == [(3, Fault.HEAD)]
        await written(database, event())
        assert named(await checked(database)) == [(4, Fault.HEAD)]

    async def test_an_old_head_put_back_shows_against_one_that_was_kept_elsewhere(self, database: Database) -> None:
        await written(database, *(event() for _ in range(3)))
        async with database.reads.connect() as connection:
            old = (await connection.execute(select(AUDIT_HEADS))).one()
        await written(database, event(), event())
        known = (await checked(database)).last
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_entries WHERE number > 3"))
            await connection.execute(update(AUDIT_HEADS).values(number=old.number, mac=old.mac, seal=old.seal))
        assert (await checked(database)).sound
        assert named(await checked(database, known=known)) == [(4, Fault.REMOVED)]
        await written(database, event(), event())
        assert named(await checked(database, known=known)) == [(5, Fault.CHANGED)]

    async def test_a_chain_that_was_made_anew_without_the_key_is_found(self, database: Database) -> None:
        await written(database, *(event() for _ in range(5)))
        foreign = HmacKeyedHash(Secret(bytes(reversed(range(32)))))
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_entries"))
            await connection.execute(text("DELETE FROM audit_heads"))
        connection = SqlConnection(database.transactions)
        audit = SqlAuditTrail(connection, foreign, SystemClock())
        for _ in range(5):
            audit.note(event())
        await SqlTransaction(connection, audit).commit()
        report = await checked(database)
        assert named(report)[0] == (1, Fault.CHANGED)
        assert named(report)[-1] == (5, Fault.HEAD)


@pytest.mark.usefixtures("older")
class TestIntruding:
    """What whoever has the service's own role can do, which may write to the log and not remove from it."""

    async def put(self, database: Database, *numbers: int) -> None:
        async with database.transactions.begin() as connection:
            for number in numbers:
                await connection.execute(
                    text(
                        "INSERT INTO audit_entries"
                        " (workspace_id, number, at, actor_kind, action, outcome, details, mac)"
                        " VALUES (:workspace, :number, now(), 'cli', 'nothing.happened', 'ok', '{}', :mac)"
                    ),
                    {"workspace": OURS, "number": number, "mac": bytes(32)},
                )

    async def test_an_entry_put_behind_the_end_is_found_before_more_is_written_and_afterwards(
        self, database: Database
    ) -> None:
        await written(database, event(), event())
        await self.put(database, 3)
        assert named(await checked(database)) == [(3, Fault.CHANGED), (3, Fault.INSERTED)]
        await written(database, event(), event())
        assert [row.number for row in await rows(database)] == [1, 2, 3, 4, 5]
        assert named(await checked(database)) == [(3, Fault.INSERTED)]
        async with superuser(database) as connection:
            await connection.execute(text("DELETE FROM audit_entries WHERE number = 3"))
        assert named(await checked(database)) == [(3, Fault.REMOVED)]

    async def test_the_service_goes_on_behind_whatever_was_put_there(self, database: Database) -> None:
        await written(database, event())
        await self.put(database, *range(2, 42), 44, 2**62, 2**63 - 2, 2**63 - 1)
        async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
            for _ in range(3):
                batch.note(event())
            await batch.flush()
        await written(database, event())
        await self.put(database, 49)
        await written(database, event())
        numbers = [row.number for row in await rows(database) if row.action == "person.created"]
        assert numbers == [1, 45, 46, 47, 48, 50]
        report = await checked(database)
        assert {44, 49, 2**62, 2**63 - 2, 2**63 - 1} <= {one.number for one in report.findings}
        assert not {*numbers} & {one.number for one in report.findings if one.until == one.number}

    async def test_the_first_entry_of_a_chain_comes_behind_whatever_was_put_there(self, database: Database) -> None:
        await self.put(database, -1, 0, 1, 2**63 - 1)
        await written(database, event(), event())
        assert [row.number for row in await rows(database) if row.action == "person.created"] == [2, 3]
        assert (1, Fault.CHANGED) in named(await checked(database))

    async def test_the_service_goes_on_where_the_head_was_set_as_far_as_it_goes(self, database: Database) -> None:
        await written(database, event())
        async with database.transactions.begin() as connection:
            await connection.execute(update(AUDIT_HEADS).values(number=2**63 - 1))
        about = uuid4()
        await written(database, event(subject=about), event(), event())
        assert [row.number for row in await rows(database)] == [1, 2, 3, 4]
        assert named(await checked(database)) == [(5, Fault.REMOVED), (2**63 - 1, Fault.HEAD)]
        log = SqlAuditLog(database.reads)
        found = await log.page(OURS, limit=10, before=None, only=AuditFilter(about=frozenset({about})))
        assert [one.number for one in found] == [2]


class TestBeginnings:
    """A chain of which everything was taken away, and that the service began anew."""

    async def wiped(self, database: Database, *chains: WorkspaceId) -> None:
        async with superuser(database) as connection:
            for table in (AUDIT_ENTRIES, AUDIT_HEADS):
                await connection.execute(delete(table).where(table.c.workspace_id.in_(chains)))

    async def test_a_chain_as_it_was_made_is_sound(self, database: Database) -> None:
        ours = await made(database)
        assert (await checked(database, ours)).sound
        assert (await checked(database, INSTANCE)).sound

    async def test_a_workspace_s_chain_that_is_gone_or_was_begun_anew_is_found(self, database: Database) -> None:
        ours = await made(database)
        await self.wiped(database, ours, INSTANCE)
        assert named(await checked(database, ours)) == [(1, Fault.REMOVED)]
        await written(database, event(ours), event(INSTANCE))
        assert named(await checked(database, ours)) == [(1, Fault.REMOVED)]
        assert named(await checked(database, INSTANCE)) == [(1, Fault.REMOVED)]

    async def test_a_beginning_of_another_workspace_is_none(self, database: Database) -> None:
        ours = await made(database)
        await self.wiped(database, ours)
        await written(database, event(ours, action=AuditAction.WORKSPACE_CREATED))
        assert named(await checked(database, ours)) == [(1, Fault.REMOVED)]

    @pytest.mark.usefixtures("older")
    async def test_only_workspaces_that_are_older_than_the_log_may_begin_otherwise(self, database: Database) -> None:
        old = Workspace(id=OURS, name="old", created_at=datetime.now(UTC))
        async with begun(database) as unit:
            await SqlWorkspaceRepository(unit.connection).add(old)
            await unit.transaction.commit()
        assert (await checked(database)).sound
        await written(database, event())
        ours, theirs = await made(database), await made(database)
        assert all([(await checked(database, one)).sound for one in (OURS, ours, INSTANCE)])
        await self.wiped(database, ours)
        assert named(await checked(database, ours)) == [(1, Fault.REMOVED)]
        await self.wiped(database, INSTANCE)
        (found,) = (await checked(database, INSTANCE)).findings
        assert (found.fault, str(theirs) in found.what) == (Fault.REMOVED, True)

    async def test_chains_of_workspaces_that_are_there_or_once_were_are_all_asked_for(self, database: Database) -> None:
        there, gone = await made(database), await made(database)
        await self.wiped(database, there, gone)
        async with database.transactions.begin() as connection:
            await connection.execute(text("DELETE FROM workspaces WHERE id = :it"), {"it": gone})
        assert await SqlAuditLog(database.reads).chains() == [INSTANCE, *sorted([there, gone])]
        assert named(await checked(database, gone)) == [(1, Fault.REMOVED)]


@pytest.mark.usefixtures("older")
class TestTogether:
    async def test_many_writers_of_one_chain_leave_no_gap(self, database: Database) -> None:
        async def write(number: int) -> None:
            for _ in range(5):
                async with begun(database) as unit:
                    unit.audit.note(event(OURS, details={"writer": number}))
                    unit.audit.note(event(THEIRS))
                    await unit.transaction.commit()

        async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
            writers = [asyncio.create_task(write(number)) for number in range(10)]
            for _ in range(50):
                batch.note(event(OURS))
                await asyncio.sleep(0.005)
            await asyncio.gather(*writers)
        assert [row.number for row in await rows(database)] == list(range(1, 101))
        assert (await checked(database)).sound
        assert (await checked(database, THEIRS)).sound

    async def test_writers_of_another_chain_do_not_wait(self, database: Database) -> None:
        await written(database, event(OURS), event(THEIRS))
        async with begun(database) as slow:
            slow.audit.note(event(OURS))
            await slow.audit.write()  # the head of ours is locked from here on
            async with asyncio.timeout(30.0):
                await written(database, event(THEIRS))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await written(database, event(OURS))
            await slow.transaction.commit()
        assert (await checked(database)).entries == 2
        assert (await checked(database)).sound

    @pytest.mark.parametrize("when", ["before the commit", "in the commit"])
    async def test_a_connection_that_is_killed_leaves_both_or_neither(self, database: Database, when: str) -> None:
        await written(database, event())
        async with begun(database) as unit:
            made = Workspace(id=WorkspaceId(uuid4()), name="made", created_at=datetime.now(UTC))
            await SqlWorkspaceRepository(unit.connection).add(made)
            unit.audit.note(event(subject=made.id))
            if when == "in the commit":
                await unit.audit.write()
            async with database.pings.connect() as connection:
                await connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND state = 'idle in transaction'"
                    )
                )
            with pytest.raises(PortUnavailable):
                await unit.transaction.commit()
        async with begun(database) as unit:
            assert await SqlWorkspaceRepository(unit.connection).named("made") is None
        report = await checked(database)
        assert (report.entries, report.sound) == (1, True)


@pytest.mark.usefixtures("older")
class TestBatch:
    async def test_a_database_that_is_away_costs_nothing_but_time(self, database: Database, database_url: str) -> None:
        async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
            name = make_url(database_url).database
            await execute(beside(database_url, "postgres"), f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await end_connections(beside(database_url, "postgres"), name)
            for number in range(3):
                batch.note(event(details={"number": number}))
            with pytest.raises(PortError):
                await batch.flush()
            await execute(beside(database_url, "postgres"), f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert [row.details["number"] for row in await rows(database)] == [0, 1, 2]
        assert (await checked(database)).sound

    async def test_a_commit_of_which_nobody_knows_is_not_written_twice(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = SqlConnection.commit

        async def lost(self: SqlConnection) -> None:
            await commit(self)
            raise PortUnavailable("database", "the connection was lost")

        async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
            batch.note(event(details={"number": 1}))
            with monkeypatch.context() as patched:
                patched.setattr(SqlConnection, "commit", lost)
                with pytest.raises(PortUnavailable):
                    await batch.flush()
            batch.note(event(details={"number": 2}))
        assert [row.details["number"] for row in await rows(database)] == [1, 2]

    async def test_where_too_many_wait_answers_are_refused_and_refusals_are_counted(self, database: Database) -> None:
        batch = SqlAuditBatch(database.background, KEYED_HASH, SystemClock())
        for _ in range(WAITING):
            batch.note(event())
        with pytest.raises(PortBusy):
            batch.note(event())
        batch.note_refusal(event(action=AuditAction.CALL_REFUSED))
        async with batch:
            pass
        async with database.reads.connect() as connection:
            newest = select(AUDIT_ENTRIES).order_by(AUDIT_ENTRIES.c.number.desc()).limit(1)
            counted = (await connection.execute(newest)).one()
        assert (counted.action, counted.details) == ("calls.refused", {"calls": 1})

    async def test_a_chain_that_takes_nothing_keeps_no_other_waiting(self, database: Database) -> None:
        async with database.transactions.begin() as connection:
            await connection.execute(
                text(
                    "CREATE TRIGGER stuck BEFORE INSERT ON audit_entries FOR EACH ROW"
                    f" WHEN (NEW.workspace_id = '{OURS}') EXECUTE FUNCTION audit_is_append_only()"
                )
            )
        batch = SqlAuditBatch(database.background, KEYED_HASH, SystemClock())
        for _ in range(WAITING):
            batch.note(event())
        for _ in range(WAITING // 2):
            batch.note(event(THEIRS))
        for full in (OURS, THEIRS):
            with pytest.raises(PortBusy):
                batch.note(event(full))
        batch.note(event(INSTANCE))
        with pytest.raises(DBAPIError):
            await batch.flush()
        assert len(await rows(database, INSTANCE)) == 1
        batch.note(event(INSTANCE))
        await batch.flush(INSTANCE)
        assert len(await rows(database, INSTANCE)) == 2

    async def test_refusals_without_end_are_counted(self, database: Database) -> None:
        async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
            for _ in range(REFUSALS + 500):
                batch.note_refusal(event(INSTANCE, action=AuditAction.CALL_REFUSED))
        *one_by_one, counted = await rows(database, INSTANCE)
        assert len(one_by_one) + counted.details["calls"] == REFUSALS + 500
        assert REFUSALS <= len(one_by_one) < REFUSALS + 100
