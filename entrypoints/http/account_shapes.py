"""Accounts as they come in and go out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from application.use_cases.accounts.create_user import CreatedUser
from application.use_cases.accounts.issue_tokens import IssuedTokens
from application.use_cases.accounts.new_link import MadeLink
from domain.user import Session, SessionId, User
from domain.workspace import Membership
from entrypoints.http.problems import Problem

Text = Annotated[str, msgspec.Meta(max_length=4096)]
"""Longer than anything that is meant, and short enough to be looked at in no time."""

NO_STORE = {"Cache-Control": "no-store"}
"""What answers with a secret says to everything between it and the client (RFC 6749, 5.1)."""


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who signs in."""

    email: Text
    password: Text


class RefreshBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A refresh token, which is good once."""

    refresh_token: Text


class PasswordBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another password."""

    current_password: Text
    new_password: Text


class RegisterBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new account of one's own."""

    email: Text
    password: Text
    name: Text = ""
    invitation: Text | None = None
    """The token of an invitation."""


class LinkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The token of a one-time link."""

    token: Text


class ResetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A one-time link, and the password that it sets."""

    token: Text
    password: Text


class UserBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new account, as an administrator makes it."""

    email: Text
    name: Text = ""
    administrator: bool = False
    password: Text | None = None
    """Null: they set it with a one-time link."""
    password_link: bool = False
    """Answer with one."""


class UserBatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 100 new accounts."""

    items: list[UserBody]


class UserChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What changes of an account."""

    email: Text | None = None
    name: Text | None = None
    administrator: bool | None = None


class TokensShape(msgspec.Struct, frozen=True, kw_only=True):
    """What to sign in with from now on."""

    access_token: str
    """For `Authorization: Bearer`."""
    token_type: str
    expires_in: int
    """Seconds that the access token is good for."""
    refresh_token: str
    """Good once, for `POST /auth/refresh`; keep it as you keep a password."""
    refresh_expires_at: datetime


class UserShape(msgspec.Struct, frozen=True, kw_only=True):
    """An account."""

    id: UUID
    email: str
    name: str
    administrator: bool
    """Of the instance; apart from roles in workspaces."""
    has_password: bool
    version: int
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    deleted_at: datetime | None


class LinkShape(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time link: shown this once, and used once."""

    id: UUID
    """An invitation is listed and withdrawn by it."""
    url: str
    """A page of this service. What stands behind the `#` no browser sends to a server."""
    token: str
    purpose: str
    """`password` or `invitation`."""
    expires_at: datetime


class LinkPurposeShape(msgspec.Struct, frozen=True, kw_only=True):
    """What a one-time link is for."""

    purpose: str
    """`password` or `invitation`."""
    expires_at: datetime


class CreatedUserShape(msgspec.Struct, frozen=True, kw_only=True):
    """A new account."""

    user: UserShape
    link: LinkShape | None
    """Where one was asked for."""


class UserResultShape(msgspec.Struct, frozen=True, kw_only=True):
    """One of several new accounts, or why there is none."""

    index: int
    user: UserShape | None = None
    link: LinkShape | None = None
    problem: Problem | None = None


class UserBatchShape(msgspec.Struct, frozen=True, kw_only=True):
    """A result or a problem for each item, in order."""

    items: list[UserResultShape]


class UserListShape(msgspec.Struct, frozen=True, kw_only=True):
    """A page of users."""

    items: list[UserShape]
    next_cursor: str | None


class MembershipShape(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace that the user is a member of."""

    workspace_id: UUID
    role: str
    since: datetime


class AccountShape(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in."""

    user: UserShape
    memberships: list[MembershipShape]


class SessionShape(msgspec.Struct, frozen=True, kw_only=True):
    """A device that the user is signed in on."""

    id: UUID
    current: bool
    """Whether the call came from it."""
    agent: str
    """What the client calls itself."""
    created_at: datetime
    last_used_at: datetime
    """When it last got new tokens."""
    expires_at: datetime


class SessionListShape(msgspec.Struct, frozen=True, kw_only=True):
    """All of a user's open sessions."""

    items: list[SessionShape]
    next_cursor: str | None = None
    """Always null: there are few."""


def to_tokens(tokens: IssuedTokens) -> TokensShape:
    """Render tokens."""
    return TokensShape(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - a name
        expires_in=int(tokens.lifetime.total_seconds()),
        refresh_token=tokens.refresh_token,
        refresh_expires_at=tokens.refresh_expires_at,
    )


def to_user(user: User) -> UserShape:
    """Render a user."""
    return UserShape(
        id=user.id,
        email=user.email,
        name=user.name,
        administrator=user.administrator,
        has_password=user.has_password,
        version=user.version,
        created_at=user.created_at,
        updated_at=user.updated_at,
        last_login_at=user.last_login_at,
        deleted_at=user.deleted_at,
    )


def to_link(made: MadeLink, *, public_url: str) -> LinkShape:
    """Render a one-time link: the token stands in the fragment, which is in no server's log."""
    return LinkShape(
        id=made.link.id,
        url=f"{public_url}/account#{made.token}",
        token=made.token,
        purpose=made.link.purpose.value,
        expires_at=made.link.expires_at,
    )


def to_created(created: CreatedUser, *, public_url: str) -> CreatedUserShape:
    """Render a new account."""
    link = None if created.link is None else to_link(created.link, public_url=public_url)
    return CreatedUserShape(user=to_user(created.user), link=link)


def to_membership(membership: Membership) -> MembershipShape:
    """Render a membership."""
    return MembershipShape(workspace_id=membership.workspace, role=membership.role.value, since=membership.created_at)


def to_session(session: Session, *, current: SessionId) -> SessionShape:
    """Render a session."""
    return SessionShape(
        id=session.id,
        current=session.id == current,
        agent=session.agent,
        created_at=session.created_at,
        last_used_at=session.last_used_at,
        expires_at=session.expires_at,
    )
