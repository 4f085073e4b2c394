"""The ports to what is remembered of erasures, and to what may be left of somebody."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.enrolment import ReferenceId
from domain.erasure import Erasure, ErasureId, Holdings
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


class Erasures(Protocol):
    """Erasures in the database, as hashes; in the transaction that erased."""

    @abstractmethod
    async def add(self, erasure: Erasure) -> None:
        """Keep a new one; nothing happens where it is kept."""

    @abstractmethod
    async def save(self, erasure: Erasure) -> None:
        """Replace the receipt, and whether it is filed."""

    @abstractmethod
    async def of_id(self, workspace: WorkspaceId, erasure: ErasureId) -> Erasure | None:
        """Return one by its id, None where there is none."""

    @abstractmethod
    async def of_digest(self, workspace: WorkspaceId, digest: bytes) -> Erasure | None:
        """Return the last one that a digest is among, None where there is none."""

    @abstractmethod
    async def unfiled(self, *, limit: int) -> Sequence[Erasure]:
        """Return those of all workspaces that the ledger has not, oldest first: for upkeep alone."""


class FiledErasures(Protocol):
    """What is written of an erasure behind its call, which may still be at it."""

    @abstractmethod
    async def filed(self, erasure: Erasure) -> None:
        """Note that the ledger has it, and change nothing else of it."""

    @abstractmethod
    async def finish(self, erasure: Erasure, receipt: Mapping[str, object]) -> None:
        """Replace the receipt, unless it is another one by now than `erasure` has."""


class LedgerMark(Protocol):
    """How far this database is known to agree with the ledger beside it."""

    @abstractmethod
    async def known(self, erasures: Sequence[ErasureId]) -> frozenset[ErasureId]:
        """Return those of them that the database has."""

    @abstractmethod
    async def erasures(self, *, since: datetime | None, after: Erasure | None, limit: int) -> Sequence[Erasure]:
        """Return up to `limit` erasures of all workspaces behind `after`, by workspace and id.

        With `since`, those alone that were made then or later.
        """

    @abstractmethod
    async def replayed_until(self) -> datetime | None:
        """Return the time up to which nothing in the ledger is new to it; None: nothing was ever found there."""

    @abstractmethod
    async def set_replayed_until(self, moment: datetime) -> None:
        """Remember it, in the running transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPerson:
    """Somebody whom the record has: ids alone."""

    id: PersonId
    gallery: GalleryId
    merged_into: PersonId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReference:
    """A reference that the record has: ids alone."""

    id: ReferenceId
    gallery: GalleryId


class KeptPeople(Protocol):
    """People of the record of whom nothing is opened: whoever cannot be opened any more can be erased."""

    @abstractmethod
    async def locked(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> KeptPerson:
        """Return one, kept from changing until the transaction ends. Raises `PersonNotFound`."""

    @abstractmethod
    async def names(self, workspace: WorkspaceId, people: Sequence[PersonId]) -> Sequence[bytes]:
        """Return what the `external_id`s of those who have one are looked up by."""

    @abstractmethod
    def name(self, workspace: WorkspaceId, external_id: str) -> bytes:
        """Return what an `external_id` is looked up by."""

    @abstractmethod
    async def part(self, workspace: WorkspaceId, person: KeptPerson, *, now: datetime) -> None:
        """Note that they are merged into nobody any more."""


class Traces(Protocol):
    """What the record holds, by ids: to erase it, and to prove that it is gone."""

    @abstractmethod
    async def of_person(self, workspace: WorkspaceId, person: PersonId) -> tuple[Holdings, Sequence[PersonId]]:
        """Return how much there is of somebody, and their id with those of people merged into them.

        Rows that name them are counted, whether or not they have one themselves.
        """

    @abstractmethod
    async def people(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[KeptPerson]:
        """Return up to `limit` people of all galleries behind `after`, by id."""

    @abstractmethod
    async def references(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[KeptReference]:
        """Return up to `limit` references of all galleries behind `after`, by id."""

    @abstractmethod
    async def open_jobs(self, workspace: WorkspaceId) -> int:
        """Return how many jobs of a workspace have sealed files in the blob store."""

    @abstractmethod
    async def noted(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[ReferenceId]:
        """Return up to `limit` references behind `after` that are noted to be brought in line, by id."""
