"""What calls are recognised by: API keys, and who a call comes from."""

import base64
import re
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NewType
from uuid import UUID

from domain.errors import (
    AdministratorOnly,
    CredentialMissing,
    InvalidValue,
    RoleMissing,
    ScopeMissing,
    WorkspaceUnclear,
)
from domain.gallery import GalleryId
from domain.permission import IN_WORKSPACE, Permission, Role, Scope
from domain.user import SessionId, UserId
from domain.workspace import WorkspaceId

ApiKeyId = NewType("ApiKeyId", UUID)

KEY_BEGINS = "fp_"
KEY_BYTES = 32
PREFIX_LENGTH = 11
KEY_NAME_LENGTH = 100

LONGEST_OVERLAP = timedelta(days=30)
DEFAULT_OVERLAP = timedelta(days=1)
"""How long a key that was rotated is good beside the new one."""

_KEY = re.compile(r"fp_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{6})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of a key; the key itself is shown once and never stored."""

    id: ApiKeyId
    workspace: WorkspaceId
    name: str
    prefix: str
    """The key's first characters, to recognise it in a list."""
    scopes: frozenset[Scope]
    galleries: frozenset[GalleryId] | None = None
    """The only galleries that it may be used for; None: all, and those that are made later."""
    created_at: datetime
    created_by: UserId | None = None
    """None where the command line or another key made it."""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To a minute."""
    rotated_from: ApiKeyId | None = None
    """The key that it takes the place of."""

    def usable(self, now: datetime) -> bool:
        """Tell whether it is neither revoked nor expired at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a call comes from, once its credential was found good, and what they may do."""

    workspace: WorkspaceId | None
    """None for a user who named none and has not exactly one."""
    permissions: frozenset[Permission]
    key: ApiKeyId | None = None
    user: UserId | None = None
    """Both None for the local operator on the command line."""
    session: SessionId | None = None
    role: Role | None = None
    """The user's in the workspace."""
    scopes: frozenset[Scope] = frozenset()
    """Those that may be given to another API key."""
    galleries: frozenset[GalleryId] | None = None
    """The only ones that are there for this call; None: all of the workspace."""
    ends_at: datetime | None = None
    """When the API key expires; None: never, and for users."""

    def require(self, permission: Permission) -> None:
        """Raise what stands against it.

        Raises:
            CredentialMissing: an API key, where a user must be signed in.
            AdministratorOnly: a user who is no instance administrator.
            WorkspaceUnclear: a user of several workspaces, or of none, who named none.
            RoleMissing: a member whose role does not allow it.
            ScopeMissing: an API key without the scope.
        """
        if permission is Permission.OPEN or permission in self.permissions:
            return
        if self.user is None:
            if permission in {Permission.ACCOUNT, Permission.ADMINISTER}:
                raise CredentialMissing("this is for users who are signed in, with an access token; API keys are not")
            raise ScopeMissing(f"this API key may not do that: it lacks what '{permission.value}' needs")
        if permission is Permission.ADMINISTER:
            raise AdministratorOnly("this is for instance administrators")
        if permission in IN_WORKSPACE and self.workspace is None:
            raise WorkspaceUnclear(
                "name the workspace in the header X-Workspace-Id; GET /api/v1/workspaces lists yours"
            )
        raise RoleMissing(f"your role in this workspace does not allow '{permission.value}'")


def key_of(random: bytes) -> str:
    """Return the API key of 32 random bytes.

    `fp_`, the bytes in base64url (43 characters), and in 6 more the CRC-32 of all before: 52 characters. Whoever
    searches text for leaked secrets can tell one from what merely looks like it, and a typo costs no query.
    """
    begun = KEY_BEGINS + _base64url(random)
    return begun + _checksum(begun)


def looks_like_key(secret: str) -> bool:
    """Tell whether it can be an API key: one of 52 characters with its checksum, or one of 46 from before these."""
    found = _KEY.fullmatch(secret)
    return found is not None and found[2] in {None, _checksum(KEY_BEGINS + found[1])}


def checked_key_name(name: str) -> str:
    """Return it trimmed. Raises `InvalidValue` unless it has 1 to 100 printable characters."""
    plain = name.strip()
    if not 1 <= len(plain) <= KEY_NAME_LENGTH or not plain.isprintable():
        raise InvalidValue(f"a key's name has 1 to {KEY_NAME_LENGTH} printable characters", field="name")
    return plain


def _checksum(text: str) -> str:
    return _base64url(zlib.crc32(text.encode()).to_bytes(4, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
