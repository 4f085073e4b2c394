"""The port through which matching reads the record."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from application.ports.cipher import WrappedKey
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.gallery import Gallery, GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId


def _nobodys() -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTemplate:
    """A reference's template with what opens it, and whose it is."""

    reference: ReferenceId
    person: PersonId
    key: WrappedKey
    space: SpaceId
    """What the template can be compared in."""
    template: bytes
    read_external_id: Callable[[], str | None] = field(default=_nobodys, compare=False, repr=False)

    @property
    def external_id(self) -> str | None:
        """The person's, opened when it is asked for: most of what is compared is never shown. Raises `CannotOpen`."""
        return self.read_external_id()


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

        Whose consent has expired is not found: nobody may compare them.
        Both at once, since every verification needs both, and the templates are those of the gallery's space at that
        moment. Raises `GalleryNotFound`, `PersonNotFound`, and
        `PersonMerged` where they were merged into another person.
        """

    @abstractmethod
    async def templates(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        references: Sequence[ReferenceId],
        *,
        space: SpaceId | None = None,
        consented: bool = False,
    ) -> Sequence[SealedTemplate]:
        """Return the templates of those references that are in the gallery, in any order.

        Templates are of `space`, or of the gallery's at that moment; who has none of it is not among the answers.
        Who looked for them in one space must say so: the gallery may move to another one meanwhile, and keeps the
        templates of the former for a while. With `consented` those of people whose consent has expired are left
        out: whoever decides about a probe asks for that.
        """

    @abstractmethod
    async def references_in(self, workspace: WorkspaceId, gallery: GalleryId) -> int:
        """Return how many references of a gallery have a template of its space; the number may be one second old."""

    @abstractmethod
    async def all_templates(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        *,
        after: ReferenceId | None,
        limit: int,
        space: SpaceId | None = None,
    ) -> Sequence[SealedTemplate]:
        """Return up to `limit` templates behind `after`, by reference id: to rebuild or compare an index.

        They are of `space`, or of the gallery's at that moment.
        """
