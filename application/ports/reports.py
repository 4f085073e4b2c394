"""The port to what jobs and moves of galleries tell, by ids, of people who may be erased later."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from domain.person import PersonId
from domain.workspace import WorkspaceId


class ReportPlace(StrEnum):
    """Where something was told."""

    JOB = "job"
    """The result of a job, so far where it has not ended."""
    MOVE = "move"
    """How decisions compared when a gallery moved to another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was told in one place."""

    place: ReportPlace
    id: UUID
    """The job's, or the gallery's."""
    content: Mapping[str, object]
    """JSON."""


class Reports(Protocol):
    """Reports in the request's `Transaction`. Each method raises `PortUnavailable` where the database is gone."""

    @abstractmethod
    async def naming(self, workspace: WorkspaceId, people: Collection[PersonId]) -> Sequence[Report]:
        """Return all that may name one of these people or of their references, and maybe others.

        They are kept from changing until the transaction ends, and so is all that may be told meanwhile: what is
        written behind it finds the transaction's erasure.
        """

    @abstractmethod
    async def save(self, workspace: WorkspaceId, report: Report) -> None:
        """Replace the content of one that `naming` returned."""

    @abstractmethod
    async def page(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[Report]:
        """Return up to `limit` of them behind `after`, by id."""

    @abstractmethod
    async def erased(self, workspace: WorkspaceId, digests: Collection[bytes]) -> frozenset[bytes]:
        """Return those of the digests that erasures have."""
