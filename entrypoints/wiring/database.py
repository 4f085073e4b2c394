"""The record: a private PostgreSQL or a server of one's own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NewType

from dishka import Provider, Scope, alias, provide

from adapters.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError
from adapters.persistence import schema
from adapters.persistence.answer_repository import SqlAnswerRepository
from adapters.persistence.api_key_repository import SqlApiKeyRepository
from adapters.persistence.audit_batch import SqlAuditBatch
from adapters.persistence.audit_beginnings import SqlChainBeginnings
from adapters.persistence.audit_log import SqlAuditLog
from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.connection import SqlConnection
from adapters.persistence.credentials import SqlCredentials
from adapters.persistence.database import Database
from adapters.persistence.erasures import SqlErasures, SqlFiledErasures, SqlKeptPeople, SqlLedgerMark, SqlTraces
from adapters.persistence.gallery_repository import SqlGalleryRepository
from adapters.persistence.inventory import SqlInventory
from adapters.persistence.job_repository import SqlJobRepository, SqlJobSweep
from adapters.persistence.key_ring import SqlKeyRing
from adapters.persistence.key_uses import SqlKeyUses
from adapters.persistence.membership_repository import SqlMembershipRepository
from adapters.persistence.notices import SqlListener, SqlNotices
from adapters.persistence.person_repository import SqlPersonRepository
from adapters.persistence.reconciliation_repository import SqlReconciliationRepository
from adapters.persistence.record import SqlRecord
from adapters.persistence.reference_repository import SqlReferenceRepository
from adapters.persistence.reports import SqlReports
from adapters.persistence.retentions import SqlRetentions
from adapters.persistence.rotations import SqlRotationChanges
from adapters.persistence.transaction import SqlTransaction
from adapters.persistence.workspace_repository import SqlWorkspaceRepository
from adapters.persistence.wrapped_keys import SqlWrappedKeys
from adapters.security.opened_ring import OpenedRing
from application.ports.accounts import MembershipRepository
from application.ports.audit import AuditBatch, AuditLog, AuditTrail, ChainBeginnings
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.credentials import Credentials
from application.ports.erasures import Erasures, FiledErasures, KeptPeople, LedgerMark, Traces
from application.ports.inventory import Inventory
from application.ports.key_ring import KeyRing
from application.ports.key_uses import KeyUses
from application.ports.keyed_hash import KeyedHash
from application.ports.notices import Listener, Notices
from application.ports.record import Record
from application.ports.reports import Reports
from application.ports.repositories import (
    AnswerRepository,
    ApiKeyRepository,
    GalleryRepository,
    JobRepository,
    JobSweep,
    PersonRepository,
    ReconciliationRepository,
    ReferenceRepository,
    WorkspaceRepository,
)
from application.ports.retentions import Retentions
from application.ports.rotations import RotationChanges
from application.ports.transaction import Transaction
from application.ports.wrapped_keys import WrappedKeys
from entrypoints.settings import Settings
from entrypoints.wiring.keys import sealing_at
from entrypoints.wiring.start_error import StartError

_behind: ContextVar[bool] = ContextVar("behind", default=False)


@contextmanager
def behind() -> Iterator[None]:
    """Let units of work that are opened in the block take the connections of background work."""
    token = _behind.set(True)
    try:
        yield
    finally:
        _behind.reset(token)


ServerUrl = NewType("ServerUrl", str)
"""Where PostgreSQL is reached, whoever runs it; the schema may be old."""


class DatabaseProvider(Provider):
    """Server, pools, repositories."""

    @provide(scope=Scope.APP)
    async def url(self, settings: Settings) -> AsyncIterator[ServerUrl]:
        """Start the private server where no other is set; it ends when its last user has gone."""
        if settings.database.url is not None:
            yield ServerUrl(settings.database.url)
            return
        server = EmbeddedPostgres(settings.data_path / "postgres")
        try:
            url = await asyncio.to_thread(server.start)
        except EmbeddedPostgresError as error:
            raise StartError(str(error)) from error
        try:
            yield ServerUrl(url)
        finally:
            await asyncio.to_thread(server.stop)

    @provide(scope=Scope.APP)
    async def database(self, url: ServerUrl, settings: Settings) -> AsyncIterator[Database]:
        """Open the pools. The private server's schema is brought up to date; another's is its operator's."""
        if settings.database.url is None:
            await schema.upgrade(url, sealing=sealing_at(url, settings))
        chosen = settings.database
        database = Database.at(url, transactions=chosen.pool_size, reads=chosen.pool_size, timeout=chosen.timeout)
        try:
            yield database
        finally:
            await database.aclose()

    @provide(scope=Scope.APP)
    async def record(self, database: Database, cipher: Cipher, keyed_hash: KeyedHash) -> AsyncIterator[Record]:
        """Read past transactions."""
        record = SqlRecord(database.reads, cipher, keyed_hash)
        try:
            yield record
        finally:
            await record.aclose()

    @provide(scope=Scope.APP)
    def credentials(self, database: Database) -> Credentials:
        """Read past transactions."""
        return SqlCredentials(database.reads)

    @provide(scope=Scope.APP)
    async def sql_listener(self, database: Database) -> AsyncIterator[SqlListener]:
        """Hear nothing yet: processes that answer or work for long begin with it when they start."""
        listener = SqlListener(database.line)
        try:
            yield listener
        finally:
            await listener.aclose()

    @provide(scope=Scope.APP)
    async def sql_key_uses(self, database: Database) -> AsyncIterator[SqlKeyUses]:
        """Write nothing yet: processes that answer begin with it when they start."""
        uses = SqlKeyUses(database.background)
        try:
            yield uses
        finally:
            await uses.aclose()

    key_uses = alias(source=SqlKeyUses, provides=KeyUses)
    listener = alias(source=SqlListener, provides=Listener)
    notices = provide(SqlNotices, provides=Notices, scope=Scope.REQUEST)

    @provide(scope=Scope.APP)
    def inventory(self, database: Database) -> Inventory:
        """Read past transactions, and past workspaces."""
        return SqlInventory(database.reads)

    @provide(scope=Scope.REQUEST)
    async def connection(self, database: Database) -> AsyncIterator[SqlConnection]:
        """Share one connection among a request's repositories; what was not committed is rolled back."""
        connection = SqlConnection(database.background if _behind.get() else database.transactions)
        try:
            yield connection
        finally:
            await connection.aclose()

    @provide(scope=Scope.APP)
    def audit_log(self, database: Database) -> AuditLog:
        """Read past transactions."""
        return SqlAuditLog(database.reads)

    @provide(scope=Scope.APP)
    def chain_beginnings(self, database: Database, ring: OpenedRing) -> ChainBeginnings:
        """Read past transactions."""
        return SqlChainBeginnings(database.reads, first_master=ring.first_master)

    @provide(scope=Scope.APP)
    async def audit_batch(self, database: Database, keyed_hash: KeyedHash, clock: Clock) -> AsyncIterator[AuditBatch]:
        """Write what waits on background work's connections, and the last of it when the process ends in order."""
        async with SqlAuditBatch(database.background, keyed_hash, clock) as batch:
            yield batch

    @provide(scope=Scope.APP)
    def wrapped_keys(self, database: Database) -> WrappedKeys:
        """Walk through them in transactions of its own."""
        return SqlWrappedKeys(database.background)

    key_ring = provide(SqlKeyRing, provides=KeyRing, scope=Scope.REQUEST)
    sql_trail = provide(SqlAuditTrail, scope=Scope.REQUEST)
    trail = alias(source=SqlAuditTrail, provides=AuditTrail)
    transaction = provide(SqlTransaction, provides=Transaction, scope=Scope.REQUEST)
    workspaces = provide(SqlWorkspaceRepository, provides=WorkspaceRepository, scope=Scope.REQUEST)
    galleries = provide(SqlGalleryRepository, provides=GalleryRepository, scope=Scope.REQUEST)
    retentions = provide(SqlRetentions, provides=Retentions, scope=Scope.REQUEST)
    people = provide(SqlPersonRepository, provides=PersonRepository, scope=Scope.REQUEST)
    references = provide(SqlReferenceRepository, provides=ReferenceRepository, scope=Scope.REQUEST)
    reconciliations = provide(SqlReconciliationRepository, provides=ReconciliationRepository, scope=Scope.REQUEST)
    erasures = provide(SqlErasures, provides=Erasures, scope=Scope.REQUEST)
    filed_erasures = provide(SqlFiledErasures, provides=FiledErasures, scope=Scope.REQUEST)
    ledger_mark = provide(SqlLedgerMark, provides=LedgerMark, scope=Scope.REQUEST)
    kept_people = provide(SqlKeptPeople, provides=KeptPeople, scope=Scope.REQUEST)
    reports = provide(SqlReports, provides=Reports, scope=Scope.REQUEST)
    traces = provide(SqlTraces, provides=Traces, scope=Scope.REQUEST)
    api_keys = provide(SqlApiKeyRepository, provides=ApiKeyRepository, scope=Scope.REQUEST)
    memberships = provide(SqlMembershipRepository, provides=MembershipRepository, scope=Scope.REQUEST)
    answers = provide(SqlAnswerRepository, provides=AnswerRepository, scope=Scope.REQUEST)
    rotation_changes = provide(SqlRotationChanges, provides=RotationChanges, scope=Scope.REQUEST)
    jobs = provide(SqlJobRepository, provides=JobRepository, scope=Scope.REQUEST)
    job_sweep = provide(SqlJobSweep, provides=JobSweep, scope=Scope.REQUEST)
