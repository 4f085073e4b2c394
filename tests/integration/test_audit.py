from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, select

from adapters.persistence.audit_batch import SqlAuditBatch
from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.tables import AUDIT_ENTRIES
from adapters.persistence.transaction import SqlTransaction
from adapters.system.clock import SystemClock
from application.use_cases.audit.origin import done_for
from domain.audit import INSTANCE, ActorKind, AuditAction, AuditEvent, Origin
from domain.workspace import WorkspaceId
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
