"""The ports to the record, for those who change it; `record` is for those who only match against it.

Every method takes the workspace, and finds nothing of another. All share the request's `Transaction`.
Each raises `PortUnavailable` where the database is gone.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from application.ports.cipher import WrappedKey
from domain.credential import ApiKey, ApiKeyId
from domain.embedding import SpaceId
from domain.enrolment import Reference, ReferenceId
from domain.gallery import Gallery, GalleryId
from domain.job import Job, JobId, JobStatus, JobWork
from domain.person import Person, PersonId
from domain.workspace import Workspace, WorkspaceId

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A stretch of a list, by id: oldest first, since ids sort by time."""

    items: tuple[T, ...]
    next_after: UUID | None
    """The last item's id where more follow, else None."""


class WorkspaceRepository(Protocol):
    """Tenants."""

    @abstractmethod
    async def add(self, workspace: Workspace) -> None:
        """Keep a new one. Raises `WorkspaceNameTaken`."""

    @abstractmethod
    async def named(self, name: str) -> Workspace | None:
        """Return the workspace of that name, None where there is none. Names are unique."""

    @abstractmethod
    async def get(self, workspace: WorkspaceId) -> Workspace:
        """Return it. Raises `WorkspaceNotFound`."""

    @abstractmethod
    async def page(
        self, *, limit: int, after: UUID | None, among: Sequence[WorkspaceId] | None = None
    ) -> Page[Workspace]:
        """Return up to `limit` workspaces behind `after`, of these alone where some are named."""

    @abstractmethod
    async def save(self, workspace: Workspace) -> None:
        """Replace it where `workspace.version - 1` is the version kept.

        Raises `VersionMismatch`, `WorkspaceNameTaken`, `WorkspaceNotFound`.
        """


class GalleryRepository(Protocol):
    """Galleries of a workspace."""

    @abstractmethod
    async def add(self, gallery: Gallery) -> None:
        """Keep a new one. Raises `GalleryNameTaken`."""

    @abstractmethod
    async def get(self, workspace: WorkspaceId, gallery: GalleryId | str, *, lock: bool = False) -> Gallery:
        """Return it by id or by name. Raises `GalleryNotFound`.

        With `lock`, nobody changes it and no reference comes into it until the transaction ends.
        """

    @abstractmethod
    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: UUID | None, among: frozenset[GalleryId] | None = None
    ) -> Page[Gallery]:
        """Return up to `limit` galleries behind `after`, of these alone where some are named."""

    @abstractmethod
    async def save(self, gallery: Gallery) -> None:
        """Replace it where `gallery.version - 1` is the version kept.

        Raises `VersionMismatch`, `GalleryNameTaken`, `GalleryNotFound`.
        """

    @abstractmethod
    async def remove(self, workspace: WorkspaceId, gallery: GalleryId) -> None:
        """Remove it. Raises `GalleryKept` where people are in it and `GalleryNotFound`."""


class PersonRepository(Protocol):
    """People of a gallery."""

    @abstractmethod
    async def add(self, person: Person, key: WrappedKey) -> None:
        """Keep a new one with the data key of their references. Raises `ExternalIdTaken` and `GalleryNotFound`."""

    @abstractmethod
    async def get(
        self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId | str, *, lock: bool = True
    ) -> Person:
        """Return them by id or by `external_id`. Raises `PersonNotFound`.

        Locked until the transaction ends; without `lock` it neither waits for a writer nor stands in one's way.
        """

    @abstractmethod
    async def page(
        self, workspace: WorkspaceId, gallery: GalleryId, *, limit: int, after: UUID | None, external_id: str | None
    ) -> Page[Person]:
        """Return up to `limit` people behind `after`, merged ones left out; with `external_id`, that one alone."""

    @abstractmethod
    async def save(self, person: Person) -> None:
        """Replace them where `person.version - 1` is the version kept.

        Raises `VersionMismatch`, `ExternalIdTaken`, `PersonNotFound`.
        """

    @abstractmethod
    async def remove(self, workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> Sequence[ReferenceId]:
        """Remove them with references, keys and remembered answers, people merged into them too.

        Returns every reference that went, by id: those they have, and those sealed with one of their keys,
        whoever has them. In the same transaction the caller notes in `ReconciliationRepository` that the
        index and the blob store must forget them. Raises `PersonNotFound`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReference:
    """A reference with its sealed template, as it is written."""

    reference: Reference
    key: WrappedKey
    template: bytes
    """Sealed with `key` at the place (workspace, reference id, `template`)."""


class ReferenceRepository(Protocol):
    """References of a gallery."""

    @abstractmethod
    async def key_of(self, workspace: WorkspaceId, person: PersonId) -> WrappedKey:
        """Return the data key that new references of a person are sealed with. Raises `PersonNotFound`."""

    @abstractmethod
    async def add(self, references: Sequence[NewReference]) -> bool:
        """Keep new ones of one gallery; False where that has moved to another space meanwhile: then none is kept.

        Until the transaction ends it stays where it is. Raises `PersonNotFound` where the person is gone.
        """

    @abstractmethod
    async def page(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId,
        *,
        limit: int,
        after: UUID | None,
        person: PersonId | None = None,
        reference: ReferenceId | None = None,
    ) -> Page[Reference]:
        """Return up to `limit` references behind `after`, of one person or one id where given."""

    @abstractmethod
    async def remove(self, workspace: WorkspaceId, gallery: GalleryId, reference: ReferenceId) -> Reference:
        """Remove one and return what it was. Raises `ReferenceNotFound`."""

    @abstractmethod
    async def move(
        self, workspace: WorkspaceId, gallery: GalleryId, *, source: PersonId, target: PersonId, back: bool
    ) -> Sequence[ReferenceId]:
        """Give the references of `source` to `target` and return their ids.

        With `back`, only those that were enrolled for `target` or for anybody merged into them, at
        whatever remove: the undoing of a merge. No ciphertext moves: references stay sealed with the key
        they were enrolled under.
        """


class ReconciliationRepository(Protocol):
    """What must still be brought in line outside the record, noted in the transaction that made it necessary."""

    @abstractmethod
    async def note(
        self, workspace: WorkspaceId, references: Sequence[ReferenceId], *, space: SpaceId, due: datetime
    ) -> None:
        """Note that these references must be reconciled; noted twice is noted once, and earlier.

        `space` is the gallery's. Those that galleries of the workspace are moving to or from are noted with it: of
        a reference that is gone nobody can say later in which of them it was.
        """

    @abstractmethod
    async def due(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, ReferenceId]]:
        """Return what is due, oldest first, of all workspaces: for the sweep alone."""

    @abstractmethod
    async def lock(
        self, workspace: WorkspaceId, references: Sequence[ReferenceId]
    ) -> "Mapping[ReferenceId, Pending | None]":
        """Lock notes and references until the transaction ends, and read both again; waits for nobody.

        A reference without a note is not among the answers. None where there is one, but another
        transaction holds it or the reference.
        """

    @abstractmethod
    async def done(self, workspace: WorkspaceId, references: Sequence[ReferenceId]) -> None:
        """Forget the notes, and mark the references that are still there searchable."""

    @abstractmethod
    async def postpone(
        self, workspace: WorkspaceId, reference: ReferenceId, *, due: datetime, error: str, searchable: bool
    ) -> None:
        """Count a try that failed, and say when the next one is due.

        Mark the reference `searchable` where the index that answers has it, whatever else failed; it stays marked.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A locked note: what the record says of a reference at this moment."""

    attempts: int
    space: SpaceId
    """The gallery's."""
    spaces: frozenset[SpaceId]
    """Those in which an index may hold it: mostly one, two while a gallery moves."""
    gallery: GalleryId | None
    person: PersonId | None
    key: WrappedKey | None
    """All three None where the reference is gone: then indexes and blob store must forget it too."""
    templates: Mapping[SpaceId, bytes]
    """What is to be in the index, by space, and in those of `spaces` alone; nothing where the reference is gone."""

    @property
    def template(self) -> bytes | None:
        """That of the gallery's space, None where there is none: the reference is gone, or was left behind."""
        return self.templates.get(self.space)


class ApiKeyRepository(Protocol):
    """API keys of a workspace: what is kept of them, those that are revoked or expired too."""

    @abstractmethod
    async def add(self, key: ApiKey, digest: bytes) -> None:
        """Keep a new one under the keyed hash of its secret."""

    @abstractmethod
    async def get(self, workspace: WorkspaceId, key: ApiKeyId, *, lock: bool = False) -> ApiKey:
        """Return it; with `lock`, nobody else changes it until the transaction ends. Raises `ApiKeyNotFound`."""

    @abstractmethod
    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: UUID | None, within: frozenset[GalleryId] | None = None
    ) -> Page[ApiKey]:
        """Return up to `limit` keys behind `after`; with `within`, those alone that are limited to such galleries."""

    @abstractmethod
    async def is_replaced(self, key: ApiKey) -> bool:
        """Tell whether another key was made in the place of this one."""

    @abstractmethod
    async def save(self, key: ApiKey) -> None:
        """Keep when one that was read with `lock` ends: `expires_at` and `revoked_at`. Raises `ApiKeyNotFound`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered to a creating call, so that the same call gets it again."""

    fingerprint: bytes
    """Keyed hash of the call's parts."""
    key: WrappedKey
    body: bytes
    """Sealed at the place (workspace, id of the key, `answer`)."""


class AnswerRepository(Protocol):
    """Remembered answers, by workspace and idempotency key, for 24 hours."""

    @abstractmethod
    async def find(self, workspace: WorkspaceId, idempotency_key: str, *, now: datetime) -> Answer | None:
        """Return the answer, None where there is none or it has expired at `now`."""

    @abstractmethod
    async def keep(
        self,
        workspace: WorkspaceId,
        idempotency_key: str,
        answer: Answer,
        *,
        person: PersonId | None,
        expires_at: datetime,
    ) -> bool:
        """Keep it in the transaction of the call itself; it goes with `person`.

        Waits for a call with the same key that has not ended yet; False where that one was committed:
        then nothing of this call may be.
        """

    @abstractmethod
    async def purge(self, now: datetime) -> int:
        """Remove what has expired and return how many."""


class JobRepository(Protocol):
    """Jobs of a workspace."""

    @abstractmethod
    async def add(self, job: Job, key: WrappedKey | None = None) -> None:
        """Keep a new one; with `key` where files lie in the blob store for it, sealed with that."""

    @abstractmethod
    async def get(self, workspace: WorkspaceId, job: JobId, *, lock: bool = False) -> Job:
        """Return it; with `lock`, nobody else changes it until the transaction ends. Raises `JobNotFound`."""

    @abstractmethod
    async def page(
        self,
        workspace: WorkspaceId,
        *,
        limit: int,
        after: UUID | None,
        status: JobStatus | None = None,
        kind: JobWork | None = None,
        galleries: frozenset[GalleryId] | None = None,
    ) -> Page[Job]:
        """Return up to `limit` jobs behind `after`, of one status or kind, or of these galleries, where given."""

    @abstractmethod
    async def save(self, job: Job) -> None:
        """Replace one that was read with `lock` in this transaction. Raises `JobNotFound`."""

    @abstractmethod
    async def key_of(self, workspace: WorkspaceId, job: JobId) -> WrappedKey | None:
        """Return what opens the files of a job, None where it has none, or has none any more."""


class JobSweep(Protocol):
    """What must be done about jobs of all workspaces: for the sweep alone."""

    @abstractmethod
    async def due(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, JobId]]:
        """Return jobs that can be run: those that wait and are due, and those whose lease ran out. Oldest first."""

    @abstractmethod
    async def with_files(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, JobId]]:
        """Return jobs that have ended, were due, and may still have files in the blob store."""

    @abstractmethod
    async def without_files(self, workspace: WorkspaceId, job: JobId) -> None:
        """Forget the key of a job's files: they are gone."""

    @abstractmethod
    async def purge(self, ended_before: datetime) -> int:
        """Remove jobs that ended before then and have no files left; return how many."""
