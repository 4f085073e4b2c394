"""The port through which matching reads the record."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from application.ports.cipher import WrappedKey
from domain.enrolment import ReferenceId
from domain.gallery import Gallery, GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTemplate:
    """A reference's template with what opens it, and whose it is."""

    reference: ReferenceId
    person: PersonId
    external_id: str | None
    key: WrappedKey
    template: bytes


class Record(Protocol):
    """What is committed at this moment, read without a transaction: each method is one round trip.

    Raises `PortUnavailable` where the database is gone.
    """

    @abstractmethod
    async def gallery(self, workspace: WorkspaceId, gallery: GalleryId | str) -> Gallery:
        """Return a gallery by id or name. Raises `GalleryNotFound`."""

    @abstractmethod
    async def templates_of(
        self, workspace: WorkspaceId, gallery: GalleryId | str, person: PersonId | str
    ) -> tuple[Gallery, Sequence[SealedTemplate]]:
        """Return a gallery and all templates of a person in it, by id or `external_id`; empty where they have none.

        Both at once, since every verification needs both. Raises `GalleryNotFound`, `PersonNotFound`, and
        `PersonMerged` where they were merged into another person.
        """

    @abstractmethod
    async def templates(
        self, workspace: WorkspaceId, gallery: GalleryId, references: Sequence[ReferenceId]
    ) -> Sequence[SealedTemplate]:
        """Return the templates of those references that are in the gallery, in any order."""

    @abstractmethod
    async def references_in(self, workspace: WorkspaceId, gallery: GalleryId) -> int:
        """Return how many references a gallery holds; the number may be one second old."""

    @abstractmethod
    async def all_templates(
        self, workspace: WorkspaceId, gallery: GalleryId, *, after: ReferenceId | None, limit: int
    ) -> Sequence[SealedTemplate]:
        """Return up to `limit` templates behind `after`, by reference id: to rebuild or compare an index."""
