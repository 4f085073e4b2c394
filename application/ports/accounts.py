"""The ports to users, their sessions, one-time links and memberships. All share the request's `Transaction`.

Each raises `PortUnavailable` where the database is gone.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from application.ports.repositories import Page
from domain.permission import Role
from domain.user import LinkId, Session, SessionId, User, UserId
from domain.workspace import Membership, WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFilter:
    """Which users a list is about; None: whichever."""

    email: str | None = None
    """The one of this address."""
    deleted: bool | None = False
    administrator: bool | None = None


class UserRepository(Protocol):
    """Accounts of the installation, deleted ones too. Addresses and names are sealed where they are kept."""

    @abstractmethod
    async def add(self, user: User, *, password_hash: str | None) -> None:
        """Keep a new one. Raises `EmailTaken`, also where the address is a deleted user's."""

    @abstractmethod
    async def get(self, user: UserId | str, *, lock: bool = False) -> User:
        """Return one by id or by email address, without regard to case. Raises `UserNotFound`."""

    @abstractmethod
    async def password_hash(self, user: UserId) -> str | None:
        """Return the hash of a user's password, None where they have none. Raises `UserNotFound`."""

    @abstractmethod
    async def page(self, *, limit: int, after: UUID | None, only: UserFilter) -> Page[User]:
        """Return up to `limit` users behind `after`."""

    @abstractmethod
    async def save(self, user: User, *, password_hash: str | None = None) -> None:
        """Replace one where `user.version - 1` is the version kept; with `password_hash`, the password too.

        Raises `VersionMismatch`, `EmailTaken`, `UserNotFound`, `LastAdministrator` where no administrator would be
        left, and `LastOwner` where a workspace's other members would be left without an owner by a deletion, whatever
        other transactions do meanwhile.
        """


class SessionRepository(Protocol):
    """Logins, each with a family of refresh tokens of which one is good."""

    @abstractmethod
    async def add(self, session: Session, *, refresh_digest: bytes) -> None:
        """Keep a new one with the keyed hash of its first refresh token."""

    @abstractmethod
    async def take(self, refresh_digest: bytes, *, now: datetime) -> tuple[Session, bool] | None:
        """Mark a refresh token as used and lock its session; None where nobody has it.

        Returns the session as it is, ended or not, and whether the token had not been used before.
        """

    @abstractmethod
    async def renew(self, session: Session, *, refresh_digest: bytes) -> None:
        """Keep the session's times, and the next refresh token."""

    @abstractmethod
    async def of_user(self, user: UserId) -> Sequence[Session]:
        """Return a user's sessions that have not ended, newest first."""

    @abstractmethod
    async def end(
        self, user: UserId, *, now: datetime, only: SessionId | None = None, but: SessionId | None = None
    ) -> Sequence[SessionId]:
        """End all of a user's sessions, one alone, or all but one; return those that were open until then."""


class LinkPurpose(StrEnum):
    """What a one-time link is for."""

    PASSWORD = "password"  # noqa: S105 - a name
    """Sets the password of a user who forgot it, or never had one."""
    INVITATION = "invitation"
    """Lets somebody register where that is closed, or join a workspace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a one-time link does. Its secret is shown once, to whoever made it, and kept as a keyed hash."""

    id: LinkId
    purpose: LinkPurpose
    made_by: UserId | None = None
    """Who invites, as long as they may give `role`, or whose link for a password it is, as long as they administer.

    None: the command line.
    """
    user: UserId | None = None
    """Whose password it sets."""
    workspace: WorkspaceId | None = None
    role: Role | None = None
    """What an invited one becomes in `workspace`."""
    email: str | None = None
    """The one address that may use an invitation; not read back, only compared: None in what `take` returns."""
    created_at: datetime
    expires_at: datetime


class LinkRepository(Protocol):
    """One-time links."""

    @abstractmethod
    async def add(self, link: Link, *, digest: bytes) -> None:
        """Keep a new one; a user's earlier links for a password are good no longer."""

    @abstractmethod
    async def find(self, digest: bytes, *, now: datetime) -> Link:
        """Return one that can still be used; `LinkInvalid` where there is none. The address it is for is not told."""

    @abstractmethod
    async def take(self, digest: bytes, *, purpose: LinkPurpose, now: datetime, email: str | None = None) -> Link:
        """Use one up in the running transaction.

        Raises `LinkInvalid` where there is none, it was used, has expired, is for another purpose, or for another
        address than `email`.
        """

    @abstractmethod
    async def withdraw(self, user: UserId) -> None:
        """Make a user's links for a password good no longer."""

    @abstractmethod
    async def withdraw_of(self, user: UserId) -> None:
        """Make the links for anybody's password that a user made good no longer."""


class InvitationRepository(Protocol):
    """The one-time links that lead into a workspace, as its members see them."""

    @abstractmethod
    async def page(self, workspace: WorkspaceId, *, limit: int, after: UUID | None, now: datetime) -> Page[Link]:
        """Return up to `limit` that can still be used, behind `after`, by id."""

    @abstractmethod
    async def withdraw(self, workspace: WorkspaceId, invitation: LinkId, *, now: datetime) -> Link:
        """Make one good no longer and return it. Raises `InvitationNotFound` where it cannot be used anyway."""

    @abstractmethod
    async def withdraw_of(self, user: UserId, *, workspace: WorkspaceId | None = None) -> None:
        """Make what a user made good no longer: in one workspace, or in all."""


class LoginFailures(Protocol):
    """Failed logins by email address, whether or not there is such an account."""

    @abstractmethod
    async def begin(self, email: str, *, now: datetime) -> datetime | None:
        """Count a try as failed before its outcome is known; None where it may be made.

        Else the address is locked until the time that is returned, and nothing was counted. Counted ahead, and locked
        at once for as long as `domain.user.lock_after` says, tries at one moment cannot outnumber the lock.
        """

    @abstractmethod
    async def take_back(self, email: str, *, begun: datetime) -> None:
        """Count one less: the outcome of the try begun then was not found out.

        The lock that it set is lifted, one that a later try set is not.
        """

    @abstractmethod
    async def forget(self, email: str) -> None:
        """Begin again from none: a login succeeded, or a password was set."""


class LoginRecord(Protocol):
    """What a login changes about its user: nothing that counts as a version."""

    @abstractmethod
    async def logged_in(self, user: UserId, *, at: datetime, password_hash: str | None = None) -> None:
        """Keep when it was, and a stronger hash of the same password where there is one. Unknown: nothing."""


class AccountPurge(Protocol):
    """Takes away what nobody can use any more: for upkeep alone."""

    @abstractmethod
    async def sessions(self, before: datetime) -> int:
        """Remove sessions that expired or ended before then, with their tokens, and tokens used before then."""

    @abstractmethod
    async def links(self, before: datetime) -> int:
        """Remove one-time links that expired or were used before then."""

    @abstractmethod
    async def failures(self, before: datetime) -> int:
        """Remove counts of failed logins whose last one was before then."""


class MembershipRepository(Protocol):
    """Who is in a workspace."""

    @abstractmethod
    async def add(self, membership: Membership) -> None:
        """Keep a new one.

        Raises `MemberExists`, `UserNotFound`, `WorkspaceNotFound`, and `LastOwner` for any but an owner where the
        accounts of all owners are deleted, also by a transaction that runs at this moment.
        """

    @abstractmethod
    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: UUID | None, user: UserId | None = None
    ) -> Page[Membership]:
        """Return up to `limit` members behind the user `after`, by user id; with `user`, that one alone."""

    @abstractmethod
    async def of_user(self, user: UserId) -> Sequence[Membership]:
        """Return all memberships of a user, oldest workspace first."""

    @abstractmethod
    async def save(self, membership: Membership, *, was: Role) -> None:
        """Change the role.

        Raises `MemberNotFound`, `LastOwner` where nobody would be left as owner, and `VersionMismatch` where the role
        is not what it `was` any more.
        """

    @abstractmethod
    async def remove(self, workspace: WorkspaceId, user: UserId, *, was: Role) -> None:
        """Remove one. Raises as `save` does."""
