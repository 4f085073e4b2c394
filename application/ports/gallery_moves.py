"""The ports to what is kept of a gallery that moves from one embedding space to another.

All share the request's `Transaction`. Each raises `PortUnavailable` where the database is gone.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from application.ports.cipher import WrappedKey
from application.ports.repositories import Page
from domain.embedding import SpaceId
from domain.enrolment import ReferenceId
from domain.face import Box
from domain.gallery import GalleryId
from domain.job import JobId
from domain.person import PersonId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryMove:
    """A gallery that has templates of two spaces, until one of them is given up."""

    workspace: WorkspaceId
    gallery: GalleryId
    source: SpaceId
    target: SpaceId
    """Where it was last asked to go, there or back; whether it has got there says the gallery's own space."""
    job: JobId
    """Who was last asked to do something about it."""
    report: Mapping[str, object] | None
    """How decisions in the two spaces compared, as JSON; None before that was looked at."""
    switched_at: datetime | None
    """When the gallery last changed from one of the two to the other."""
    asked_at: datetime

    def beside(self, space: SpaceId) -> SpaceId:
        """Return the other one of the two."""
        return self.target if space == self.source else self.source


class GalleryMoves(Protocol):
    """At most one a gallery."""

    @abstractmethod
    async def get(self, workspace: WorkspaceId, gallery: GalleryId, *, lock: bool = False) -> GalleryMove | None:
        """Return a gallery's, None where it has templates of one space only.

        With `lock`, to save it changed: nobody else changes it until the transaction ends.
        """

    @abstractmethod
    async def save(self, move: GalleryMove) -> None:
        """Keep it in place of what was kept before. Raises `GalleryNotFound`."""

    @abstractmethod
    async def remove(self, workspace: WorkspaceId, gallery: GalleryId) -> None:
        """Forget it; nothing happens where there is none."""

    @abstractmethod
    async def sample(self, workspace: WorkspaceId, gallery: GalleryId, *, size: int) -> Sequence[ReferenceId]:
        """Return up to `size` references of a gallery, spread evenly over the order in which they came."""

    @abstractmethod
    async def noted(
        self, workspace: WorkspaceId, gallery: GalleryId, *, now: datetime, after: ReferenceId | None, limit: int
    ) -> Sequence["Noted"]:
        """Return up to `limit` references behind `after` that are there and must be reconciled, by id."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A reference that must be reconciled."""

    reference: ReferenceId
    in_hand: bool
    """Whether the call that noted it is about to do it: to lock it now would make an enrolment say that it cannot be
    found yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagging:
    """A reference that was not looked at in a space yet."""

    reference: ReferenceId
    key: WrappedKey
    """Opens its image, and seals its template."""
    box: Box
    """The face that was enrolled, in pixels of the upright image."""
    has_image: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What came of looking at a reference in another space: a template, or the code of what stood against it."""

    reference: ReferenceId
    template: bytes | None = None
    """Sealed like the one that it was enrolled with."""
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """A reference that could not follow into a space."""

    reference: ReferenceId
    person: PersonId
    external_id: str | None
    refusal: str
    """The code of the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many references of a gallery are in a space."""

    references: int
    """All of the gallery."""
    followed: int
    """With a template of the space."""
    left_behind: Mapping[str, int]
    """Those that could not be given one, by the code of what stood against it."""

    @property
    def lagging(self) -> int:
        """Not looked at yet."""
        return self.references - self.followed - sum(self.left_behind.values())


class SpareTemplates(Protocol):
    """Templates of other spaces than the one a reference was enrolled in. They go with their reference."""

    @abstractmethod
    async def lagging(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        space: SpaceId,
        *,
        now: datetime,
        after: ReferenceId | None,
        limit: int,
        refused: bool = False,
    ) -> Sequence[Lagging]:
        """Return up to `limit` references behind `after` without a template of `space`, by id.

        Those that are in hand are not among them. Those that could not be given one are only with `refused`: to try
        again.
        """

    @abstractmethod
    async def add(
        self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId, followed: Sequence[Followed]
    ) -> Sequence[ReferenceId]:
        """Keep them in place of what was kept before, but for references that are gone; return those that are there.

        In the same transaction the caller notes that these must be reconciled.
        """

    @abstractmethod
    async def standing(self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId) -> Standing:
        """Count."""

    @abstractmethod
    async def left_behind(
        self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId, *, after: ReferenceId | None, limit: int
    ) -> Page[LeftBehind]:
        """Return up to `limit` references behind `after` that could not follow into `space`, by id."""

    @abstractmethod
    async def settle(
        self, workspace: WorkspaceId, gallery: GalleryId, space: SpaceId, *, limit: int
    ) -> Sequence[ReferenceId]:
        """Keep of up to `limit` references the template of `space` alone; return them, none where all have it so.

        What could not follow keeps the template it has. In the same transaction the caller notes that these must be
        reconciled.
        """
