"""API keys, workspaces and members as they go out."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.ports.accounts import Link
from application.use_cases.keys.issue_key import IssuedKey
from application.use_cases.workspaces.member import Member
from domain.credential import ApiKey
from domain.permission import Role
from domain.workspace import Workspace


class ApiKeyShape(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an API key; its secret is not."""

    id: UUID
    name: str
    prefix: str
    """The secret's first characters."""
    scopes: list[str]
    galleries: list[UUID] | None
    """The only ones that it is for; null: all."""
    created_at: datetime
    created_by: UUID | None
    """The user who made it; null: the command line, or another key."""
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To a minute."""
    rotated_from: UUID | None
    """The key that it takes the place of."""


class IssuedKeyShape(ApiKeyShape, frozen=True, kw_only=True):
    """A new API key, with its secret: it is shown this once."""

    api_key: str


class ApiKeyListShape(msgspec.Struct, frozen=True, kw_only=True):
    """API keys, oldest first."""

    items: list[ApiKeyShape]
    next_cursor: str | None


class WorkspaceShape(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace."""

    id: UUID
    name: str
    role: str | None
    """One's own in it; null: one is no member, or calls with an API key."""
    version: int
    created_at: datetime


class WorkspaceListShape(msgspec.Struct, frozen=True, kw_only=True):
    """Workspaces, oldest first."""

    items: list[WorkspaceShape]
    next_cursor: str | None


class MemberShape(msgspec.Struct, frozen=True, kw_only=True):
    """A user in a workspace."""

    user_id: UUID
    email: str
    name: str
    role: str
    created_at: datetime
    """When they became a member."""
    deleted_at: datetime | None
    """When their account was deleted; null: it is there."""


class MemberListShape(msgspec.Struct, frozen=True, kw_only=True):
    """Members, by user id."""

    items: list[MemberShape]
    next_cursor: str | None


class InvitationShape(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation that can still be used; its token was shown once."""

    id: UUID
    role: str
    made_by: UUID | None
    """The user who made it; null: the command line."""
    created_at: datetime
    expires_at: datetime


class InvitationListShape(msgspec.Struct, frozen=True, kw_only=True):
    """Invitations, oldest first."""

    items: list[InvitationShape]
    next_cursor: str | None


def to_api_key(key: ApiKey) -> ApiKeyShape:
    """Show a key."""
    return ApiKeyShape(**_of_key(key))  # type: ignore[arg-type]  # a dictionary of the fields above


def to_issued_key(issued: IssuedKey) -> IssuedKeyShape:
    """Show a key with its secret."""
    return IssuedKeyShape(api_key=issued.secret, **_of_key(issued.key))  # type: ignore[arg-type]  # the same


def to_workspace(workspace: Workspace, role: Role | None) -> WorkspaceShape:
    """Show a workspace, and one's role in it."""
    return WorkspaceShape(
        id=workspace.id,
        name=workspace.name,
        role=None if role is None else role.value,
        version=workspace.version,
        created_at=workspace.created_at,
    )


def to_member(member: Member) -> MemberShape:
    """Show a member."""
    return MemberShape(
        user_id=member.user.id,
        email=member.user.email,
        name=member.user.name,
        role=member.membership.role.value,
        created_at=member.membership.created_at,
        deleted_at=member.user.deleted_at,
    )


def to_invitation(link: Link) -> InvitationShape:
    """Show an invitation."""
    return InvitationShape(
        id=link.id,
        role=(link.role or Role.VIEWER).value,
        made_by=link.made_by,
        created_at=link.created_at,
        expires_at=link.expires_at,
    )


def _of_key(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "galleries": None if key.galleries is None else sorted(key.galleries),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "rotated_from": key.rotated_from,
    }
