from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.erasures import Erasures, KeptPeople, Traces
from application.ports.id_generator import IdGenerator
from application.ports.index_states import IndexStates
from application.ports.receipts import ReceiptSigner
from application.ports.repositories import GalleryRepository, PersonRepository, ReconciliationRepository
from application.ports.transaction import Transaction
from application.use_cases.erasure.erased_in_reports import ErasedInReports
from application.use_cases.erasure.erased_names import ErasedNames
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.erasure.receipts import SignedReceipt, signed
from application.use_cases.idempotency import Once, RememberedAnswers
from application.use_cases.references.reconcile import Reconcile
from domain.audit import AuditAction, AuditEvent
from domain.enrolment import ReferenceId
from domain.erasure import Erasure, ErasureId, Holdings, Receipt, Waiting
from domain.errors import FacepassError, PersonMerged, PersonNotFound
from domain.gallery import Gallery, GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ErasePerson:
    """Destroy everything about a person, and give a signed receipt of it.

    The key that their templates and images are sealed with goes first, with the rows of the record: what is
    still in an index or the blob store opens for nobody, and is removed at once or as soon as that can be
    reached; the receipt says what was not yet. People merged into them go with them. A ledger beside the
    database, of hashes alone, erases them again where an older backup is restored. The receipt names ids
    and numbers, and anybody can check its signature with the public key.
    """

    galleries: GalleryRepository
    people: PersonRepository
    kept: KeptPeople
    traces: Traces
    erasures: Erasures
    reconciliations: ReconciliationRepository
    reconcile: Reconcile
    states: IndexStates
    remembered: RememberedAnswers
    ledger: Ledger
    names: ErasedNames
    reports: ErasedInReports
    signer: ReceiptSigner
    audit: AuditTrail
    transaction: Transaction
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        person: PersonId,
        once: Once[ErasureId] | None = None,
    ) -> SignedReceipt:
        """Return the receipt; with the idempotency key of an earlier call, that one's.

        Raises `GalleryNotFound`, `PersonNotFound` (also where they were erased before) and `PersonMerged`.
        """
        earlier = await self._earlier(workspace, once)
        if earlier is not None:
            return earlier
        place = await self.galleries.get(workspace, gallery)
        try:
            found = await self.kept.locked(workspace, place.id, person)
        except PersonNotFound:
            # By the same call, perhaps, which was waited for.
            earlier = await self._earlier(workspace, once)
            if earlier is None:
                raise
            return earlier
        if found.merged_into is not None:
            # Their keys open references that the survivor has now.
            raise PersonMerged(f"the person was merged into {found.merged_into}: erase that one, or undo the merge")
        erasure, receipt, gone = await self._erase(place, found.id)
        if not await self.remembered.keep(workspace, once, erasure.id):
            await self.transaction.rollback()
            return await self._receipt(workspace, await self.remembered.committed(workspace, once))
        await self.transaction.commit()
        return await self._finish(erasure, receipt, gone)

    async def _erase(self, place: Gallery, person: PersonId) -> tuple[Erasure, Receipt, Sequence[ReferenceId]]:
        """Remove them from the record and note it, all in the running transaction."""
        workspace, now = place.workspace, self.clock.now()
        held, people = await self.traces.of_person(workspace, person)
        names = await self.names.of(workspace, place.id, people)
        gone = await self.people.remove(workspace, place.id, person)
        await self.reconciliations.note(workspace, gone, space=place.space, due=now)
        receipt = Receipt(
            id=ErasureId(self.ids.new()),
            workspace=workspace,
            gallery=place.id,
            person=person,
            erased_at=now,
            destroyed=replace(held, references=len(gone)),
            index_entries={},
            waiting=Waiting(references=len(gone), ledger=True, jobs=await self.traces.open_jobs(workspace)),
        )
        erasure = Erasure(
            id=receipt.id,
            workspace=workspace,
            erased_at=now,
            digests=(
                self.ledger.person(workspace, person),
                *(self.ledger.person(workspace, one) for one in people if one != person),
                *(self.ledger.reference(workspace, one) for one in gone),
                *names,
            ),
            receipt=signed(receipt, self.signer),
        )
        await self.erasures.add(erasure)
        await self.reports.forget(workspace, people, gone)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.PERSON_ERASED,
                subject=person,
                gallery=place.id,
                details={"receipt": str(receipt.id), **_numbers(receipt.destroyed)},
            )
        )
        return erasure, receipt, gone

    async def _finish(self, erasure: Erasure, receipt: Receipt, gone: Sequence[ReferenceId]) -> SignedReceipt:
        """Bring index, blob store and ledger in line at once, where they can be; what cannot is noted already."""
        done = await self.reconcile.after_commit(workspace=erasure.workspace, references=gone)
        filed = await self._filed(erasure)
        entries = await self._index_entries(len(gone) - len(done.behind))
        final_one = replace(
            receipt,
            index_entries=entries,
            waiting=replace(receipt.waiting, references=len(done.behind), ledger=not filed),
        )
        finished = replace(erasure, receipt=signed(final_one, self.signer), filed=filed)
        # It is done, whatever happens to the database now: the upkeep finds what it is not told here.
        with suppress(FacepassError):
            await self.erasures.save(finished)
            await self.transaction.commit()
        return finished.receipt or {}

    async def _filed(self, erasure: Erasure) -> bool:
        try:
            await self.ledger.file(erasure)
        except Exception:  # noqa: BLE001 - a third party's store may raise anything, and they are erased
            return False
        return True

    async def _index_entries(self, gone: int) -> Mapping[str, int]:
        try:
            state = await self.states.now()
        except FacepassError:
            return {}
        return dict.fromkeys(state.written, gone)

    async def _earlier(self, workspace: WorkspaceId, once: Once[ErasureId] | None) -> SignedReceipt | None:
        earlier = await self.remembered.earlier(workspace, once)
        return None if earlier is None else await self._receipt(workspace, earlier)

    async def _receipt(self, workspace: WorkspaceId, erasure: ErasureId) -> SignedReceipt:
        found = await self.erasures.of_id(workspace, erasure)
        if found is None or found.receipt is None:
            raise PersonNotFound("the person was erased, and the receipt is not kept any more")
        return found.receipt


def _numbers(destroyed: Holdings) -> dict[str, object]:
    return {
        "people": destroyed.people,
        "keys": destroyed.keys,
        "references": destroyed.references,
        "images": destroyed.images,
    }
