"""The ports to the audit log: writing it, and reading it."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.audit import AuditAction, AuditEntry, AuditEvent, AuditHead
from domain.workspace import WorkspaceId


class AuditTrail(Protocol):
    """Takes what is done in a unit of work into its transaction: both are there, or neither.

    The entry is chained at the commit, so that the head of the chain is locked no longer than that takes. Who did it
    and from where is known from the context (`application.use_cases.audit.origin`).
    """

    @abstractmethod
    def note(self, event: AuditEvent) -> None:
        """Write it down with the next commit of the request's transaction; a rollback forgets it."""


class AuditBatch(Protocol):
    """Takes what only reads: verifications, searches, refused calls.

    They come in numbers and have no transaction, so they are chained many at a time, soon afterwards, in the order in
    which they came. A process that is killed loses what it had not written yet: a quarter of a second at most, where
    the database answers; one that ends in order loses nothing.
    """

    @abstractmethod
    def note(self, event: AuditEvent) -> None:
        """Take one, with the origin and the time of this moment. Never waits.

        Raises `PortBusy` where as many of its chain wait as may: what cannot be written down is not answered.
        """

    @abstractmethod
    def note_refusal(self, event: AuditEvent) -> None:
        """Take a call that was refused; never waits, and raises nothing.

        Whoever is refused may come again without end, and no entry can ever be deleted. So beyond a rate they are
        counted, by chain, and the count is written down in place of them (`AuditAction.CALLS_REFUSED`).
        """

    @abstractmethod
    async def flush(self, workspace: WorkspaceId | None = None) -> None:
        """Write what was noted until now, in this chain; None: in all. Raises `PortUnavailable`, and keeps it then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries are asked for; None: whichever."""

    action: AuditAction | None = None
    actor: UUID | None = None
    subject: UUID | None = None
    gallery: UUID | None = None
    about: frozenset[UUID] | None = None
    """Only what concerns any of these: it is the subject, or a person or a reference among the details."""
    outcome: str | None = None
    since: datetime | None = None
    """From then on."""
    until: datetime | None = None
    """Before then."""


class AuditLog(Protocol):
    """What was written. Each method raises `PortUnavailable` where the database is gone."""

    @abstractmethod
    async def page(
        self, workspace: WorkspaceId, *, limit: int, before: int | None, only: AuditFilter
    ) -> Sequence[AuditEntry]:
        """Return up to `limit` entries with numbers below `before`, newest first."""

    @abstractmethod
    def entries(self, workspace: WorkspaceId, *, after: int | None, only: AuditFilter) -> AsyncIterator[AuditEntry]:
        """Walk through a chain, by number, from the one behind `after`; from whatever is first where that is None.

        No transaction is held: what is written meanwhile is come to. Two entries of one number, which somebody must
        have brought about, are both there.
        """

    @abstractmethod
    async def head(self, workspace: WorkspaceId) -> AuditHead | None:
        """Return where the chain ends, as its head says; None where nothing was ever written."""

    @abstractmethod
    async def chains(self) -> Sequence[WorkspaceId]:
        """Return whose chains there are or may have been.

        The instance's, those of all workspaces that there are or that it says were made, and of whatever has entries.
        """


class ChainBeginnings(Protocol):
    """Knows how chains begin, so that one which is gone as a whole is missed.

    With every workspace two entries are written that say that it was made: the first of its own chain, and one in the
    instance's. A workspace that is older than the audit log has neither. Each method raises `PortUnavailable` where
    the database is gone.
    """

    @abstractmethod
    async def required(self, workspace: WorkspaceId) -> bool:
        """Tell whether a workspace's chain must begin with the entry that says that it was made."""

    @abstractmethod
    async def untold(self) -> Sequence[WorkspaceId]:
        """Return the workspaces that there are, and of which the instance's chain does not say so though it must."""
