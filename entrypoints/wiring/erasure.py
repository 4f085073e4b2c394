"""Erasing people, the ledger beside the database, and receipts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from dishka import AsyncContainer, Provider, Scope, provide, provide_all

from adapters.security.receipts import Ed25519ReceiptSigner
from application.ports.clock import Clock
from application.ports.receipts import ReceiptSigner
from application.use_cases.erasure.compare_ledger import CompareLedger
from application.use_cases.erasure.copy_ledger import CopyLedger
from application.use_cases.erasure.erase_due import DueUnit, EraseDue
from application.use_cases.erasure.erase_person import ErasePerson
from application.use_cases.erasure.erased_in_reports import ErasedInReports
from application.use_cases.erasure.erased_names import ErasedNames
from application.use_cases.erasure.export_person import ExportPerson
from application.use_cases.erasure.file_erasures import FileErasures
from application.use_cases.erasure.get_receipt import GetReceipt
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.erasure.ledger_gate import LedgerGate
from application.use_cases.erasure.prove_erasure import ProveErasure
from application.use_cases.erasure.refile_erasures import RefileErasures
from application.use_cases.erasure.replay_ledger import Replayed, ReplayLedger
from domain.person import PersonId

log = structlog.get_logger("facepass.startup")


class ErasureProvider(Provider):
    """Who erases, who remembers it, and who proves it."""

    ledger = provide(Ledger, scope=Scope.APP)
    signer = provide(Ed25519ReceiptSigner, provides=ReceiptSigner, scope=Scope.APP)
    erasing = provide_all(
        CompareLedger,
        CopyLedger,
        DueUnit,
        ErasedInReports,
        ErasedNames,
        ErasePerson,
        FileErasures,
        GetReceipt,
        ProveErasure,
        RefileErasures,
        ReplayLedger,
        scope=Scope.REQUEST,
    )
    export = provide(ExportPerson, scope=Scope.REQUEST)

    @provide(scope=Scope.APP)
    def gate(self, container: AsyncContainer) -> LedgerGate:
        """Let nobody be served before the ledger was replayed."""

        @asynccontextmanager
        async def replaying() -> AsyncIterator[ReplayLedger]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(ReplayLedger)

        return LedgerGate(replaying, _say)

    @provide(scope=Scope.APP)
    def erase_due(self, container: AsyncContainer, clock: Clock) -> EraseDue:
        """Give each person a unit of work of their own."""

        @asynccontextmanager
        async def erasing() -> AsyncIterator[DueUnit]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(DueUnit)

        return EraseDue(scope=erasing, clock=clock, failed=_say_failed)


def _say_failed(person: PersonId, error: Exception) -> None:
    """By its kind alone: an error's words can hold what a log must not."""
    log.error("due_not_erased", person=str(person), error=type(error).__qualname__)


def _say(replayed: Replayed) -> None:
    if replayed.new:
        log.warning("erasures_replayed", entries=replayed.new, people=replayed.people, references=replayed.references)
    if replayed.filed_again:
        log.warning("erasures_filed_again", entries=replayed.filed_again)
