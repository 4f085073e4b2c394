from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, final
from uuid import UUID

from application.ports.blob_store import BlobStore
from application.ports.erasures import Erasures, KeptReference, Traces
from application.ports.index_states import IndexStates
from application.ports.inventory import Inventory
from application.ports.receipts import ReceiptSigner
from application.ports.transaction import Transaction
from application.use_cases.erasure.erased_in_reports import ErasedInReports
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.erasure.receipts import SignedReceipt, require_signed
from application.use_cases.references.places import IMAGES
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.all_galleries import all_galleries
from domain.enrolment import ReferenceId
from domain.erasure import Erasure
from domain.errors import ReceiptInvalid
from domain.person import PersonId
from domain.workspace import WorkspaceId

_PAGE = 1000

Looking = Callable[[str, int], None]
"""Called with where it is looked at, and how many things were looked at there so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was looked at in one place, and what was found of somebody."""

    place: str
    looked_at: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether somebody is gone, place by place."""

    person: PersonId
    erasure: Erasure | None
    """What the database remembers of it; None where it remembers none."""
    looks: Sequence[Look]

    @property
    def gone(self) -> bool:
        """Whether they were erased and nothing of them was found."""
        return self.erasure is not None and not any(look.found for look in self.looks)


T = TypeVar("T", ReferenceId, KeptReference)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProveErasure:
    """Look for an erased person in the record, every index, the blob store and the ledger, and say what was found.

    Of the person nothing is known but hashes: everything that is kept is walked through, and compared with them.
    """

    erasures: Erasures
    traces: Traces
    inventory: Inventory
    spaces: ServedSpaces
    states: IndexStates
    blobs: BlobStore
    ledger: Ledger
    reports: ErasedInReports
    signer: ReceiptSigner
    transaction: Transaction

    def claimed(self, receipt: SignedReceipt) -> tuple[WorkspaceId, PersonId]:
        """Return whom a receipt is about. Raises `ReceiptInvalid` for one that this installation did not sign."""
        require_signed(receipt, self.signer)
        try:
            return (
                WorkspaceId(UUID(str(receipt["workspace_id"]))),
                PersonId(UUID(str(receipt["person_id"]))),
            )
        except (KeyError, ValueError) as error:
            raise ReceiptInvalid("this is no receipt of an erasure") from error

    async def __call__(
        self, *, workspace: WorkspaceId, person: PersonId, looking: Looking = lambda _place, _number: None
    ) -> Proof:
        """Raises `PortUnavailable` where one of the places cannot be looked at: then nothing is proved."""
        digest = self.ledger.person(workspace, person)
        erasure = await self.erasures.of_digest(workspace, digest)
        digests = frozenset(erasure.digests if erasure is not None else [digest])
        record = await self._record(workspace, person, digests, looking)
        indexes, theirs = await self._indexes(workspace, person, digests, looking)
        # Of somebody who was not erased no reference is known but those that an index says are theirs.
        known = digests | {self.ledger.reference(workspace, one) for one in theirs}
        looks = [*record, *indexes, await self._images(workspace, known, looking)]
        if erasure is not None:
            looks.append(await self._ledger(erasure))
        return Proof(person=person, erasure=erasure, looks=looks)

    async def _record(
        self, workspace: WorkspaceId, person: PersonId, digests: Collection[bytes], looking: Looking
    ) -> list[Look]:
        held, _ = await self.traces.of_person(workspace, person)
        people = found = 0
        after: UUID | None = None
        while page := await self.traces.people(workspace, after=after, limit=_PAGE):
            people += len(page)
            found += sum(self.ledger.person(workspace, one.id) in digests for one in page)
            looking("people", people)
            after = page[-1].id
        references, kept = await self._references(
            workspace, digests, self.traces.references, lambda one: one.id, partial(looking, "references")
        )
        reports, told = await self.reports.found(workspace, digests)
        looking("reports", reports)
        notes, noted = await self._references(
            workspace, digests, self.traces.noted, lambda one: one, partial(looking, "notes")
        )
        await self.transaction.rollback()
        return [
            Look(place="record: people", looked_at=people, found=max(found, held.people)),
            Look(place="record: data keys", looked_at=people, found=held.keys),
            Look(place="record: references and templates", looked_at=references, found=max(kept, held.references)),
            Look(place="record: remembered answers", looked_at=held.answers, found=held.answers),
            Look(place="record: results of jobs, reports of moves", looked_at=reports, found=told),
            Look(place="record: notes of what is still to be removed", looked_at=notes, found=noted),
        ]

    async def _references(
        self,
        workspace: WorkspaceId,
        digests: Collection[bytes],
        page_of: Callable[..., Awaitable[Sequence[T]]],
        id_of: Callable[[T], ReferenceId],
        seen: Callable[[int], None],
    ) -> tuple[int, int]:
        walked = found = 0
        after: UUID | None = None
        while page := await page_of(workspace, after=after, limit=_PAGE):
            walked += len(page)
            found += sum(self.ledger.reference(workspace, id_of(one)) in digests for one in page)
            seen(walked)
            after = id_of(page[-1])
        return walked, found

    async def _indexes(
        self, workspace: WorkspaceId, person: PersonId, digests: Collection[bytes], looking: Looking
    ) -> tuple[list[Look], set[ReferenceId]]:
        state = await self.states.now(fresh=True)
        galleries = [one.id for one in await all_galleries(self.inventory) if one.workspace == workspace]
        looks: list[Look] = []
        theirs: set[ReferenceId] = set()
        for served in self.spaces.all:
            for name in state.written:
                walked = found = 0
                for gallery in galleries:
                    async for entry in served.index(name).entries(gallery):
                        walked += 1
                        if entry.person == person or self.ledger.reference(workspace, entry.reference) in digests:
                            found += 1
                            theirs.add(entry.reference)
                        looking(name, walked)
                looks.append(Look(place=f"index {name}, {served.model}", looked_at=walked, found=found))
        return looks, theirs

    async def _images(self, workspace: WorkspaceId, digests: Collection[bytes], looking: Looking) -> Look:
        walked = found = 0
        async for key in self.blobs.keys(f"{IMAGES}/{workspace}/"):
            walked += 1
            try:
                reference = ReferenceId(UUID(key.rpartition("/")[2]))
            except ValueError:
                continue
            found += self.ledger.reference(workspace, reference) in digests
            looking("blob store", walked)
        return Look(place="blob store: images", looked_at=walked, found=found)

    async def _ledger(self, erasure: Erasure) -> Look:
        """Look whether the ledger would erase them again: here what is missing is found."""
        there = await self.ledger.has(erasure)
        return Look(place="ledger beside the database: entries that are missing", looked_at=1, found=int(not there))
