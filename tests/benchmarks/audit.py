"""What the audit log costs: an entry in a commit, and one of those that are written in batches."""

import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.persistence import schema
from adapters.persistence.audit_batch import AT_ONCE, SqlAuditBatch
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.transaction import SqlTransaction
from adapters.persistence.workspace_repository import SqlWorkspaceRepository
from adapters.system.clock import SystemClock
from domain.audit import AuditAction, AuditEvent
from domain.workspace import Workspace, WorkspaceId
from tests.benchmarks.bench import Bench
from tests.benchmarks.load import spread
from tests.benchmarks.rows import Row
from tests.trail import KEYED_HASH, trail

ROUNDS = 5
COMMITS = 200
ENTRIES = 10_000

_WORKSPACE = WorkspaceId(UUID(int=1))


def audit(bench: Bench) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="facepass-benchmark-") as folder:
        # Started by root, PostgreSQL runs as another account, which must get to its folder.
        Path(folder).chmod(0o711)
        postgres = EmbeddedPostgres(Path(folder) / "postgres", linger=0.1)
        try:
            return asyncio.run(_measured(bench, postgres.start()))
        finally:
            postgres.stop()
            postgres.wait_ended(30.0)


async def _measured(bench: Bench, url: str) -> list[Row]:
    await schema.upgrade(url)
    database = Database.at(url)
    try:
        await _commits(database, noted=True, number=20)
        without, with_entry = [], []
        for number in range(ROUNDS):
            bench.tell(f"round {number + 1} of {ROUNDS}")
            without.append(await _commits(database, noted=False, number=COMMITS))
            with_entry.append(await _commits(database, noted=True, number=COMMITS))
        together = await _together(database)
        microseconds = [await _batched(database) for _ in range(ROUNDS)]
    finally:
        await database.aclose()
    added = [one - other for one, other in zip(with_entry, without, strict=True)]
    return [
        Row(
            name="audit.commit",
            what="ms that an audit entry adds to a commit",
            value=statistics.median(added),
            shown="{:.2f}",
            note=f"one row written; without it {spread(without)} ms, with it {spread(with_entry)} ms",
        ),
        Row(
            name="audit.commits",
            what="commits a second of one workspace, by 4 writers whose entries queue for its chain",
            value=together,
            shown="{:,.0f}",
        ),
        Row(
            name="audit.batch",
            what="CPU us of an entry that is written in a batch (verification, search), in the service's process",
            value=statistics.median(microseconds),
            shown="{:.0f}",
            note=f"{ENTRIES:,} entries, {AT_ONCE} a transaction: {spread(microseconds, '{:.0f}')}",
        ),
    ]


async def _commits(database: Database, *, noted: bool, number: int) -> float:
    """Milliseconds of one, in the middle of so many."""
    taken = []
    for _ in range(number):
        connection = SqlConnection(database.transactions)
        log = trail(connection)
        name = uuid4()
        began = time.perf_counter()
        await SqlWorkspaceRepository(connection).add(
            Workspace(id=WorkspaceId(name), name=str(name), created_at=datetime.now(UTC))
        )
        if noted:
            log.note(AuditEvent(workspace=_WORKSPACE, action=AuditAction.WORKSPACE_CREATED, subject=name))
        await SqlTransaction(connection, log).commit()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


async def _together(database: Database) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(_commits(database, noted=True, number=COMMITS) for _ in range(4)))
    return 4 * COMMITS / (time.perf_counter() - began)


async def _batched(database: Database) -> float:
    began = time.process_time()
    async with SqlAuditBatch(database.background, KEYED_HASH, SystemClock()) as batch:
        for number in range(ENTRIES):
            batch.note(
                AuditEvent(
                    workspace=_WORKSPACE,
                    action=AuditAction.FACE_VERIFIED,
                    subject=_WORKSPACE,
                    gallery=_WORKSPACE,
                    details={"decision": "match", "faces": 1},
                )
            )
            if number % AT_ONCE == 0:
                await batch.flush()
    return (time.process_time() - began) * 1e6 / ENTRIES
