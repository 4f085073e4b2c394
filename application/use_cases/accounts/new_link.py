import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from application.ports.accounts import Link, LinkPurpose, LinkRepository
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.keyed_hash import KeyedHash
from domain.permission import Role
from domain.user import LinkId, UserId
from domain.workspace import WorkspaceId

LINK_BEGINS: Final = "fl_"
LINK_PURPOSE: Final = "one-time-link"
LIFETIMES: Final = {LinkPurpose.PASSWORD: timedelta(hours=24), LinkPurpose.INVITATION: timedelta(days=7)}
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeLink:
    """A one-time link and its token, which is shown this once and kept as a keyed hash alone."""

    link: Link
    token: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """Make a one-time link. A part of other use cases: whoever calls it notes it down and commits."""

    links: LinkRepository
    keyed_hash: KeyedHash
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        purpose: LinkPurpose,
        *,
        made_by: UserId | None = None,
        user: UserId | None = None,
        workspace: WorkspaceId | None = None,
        role: Role | None = None,
        email: str | None = None,
    ) -> MadeLink:
        now = self.clock.now()
        link = Link(
            id=LinkId(self.ids.new()),
            made_by=made_by,
            purpose=purpose,
            user=user,
            workspace=workspace,
            role=role,
            email=email,
            created_at=now,
            expires_at=now + LIFETIMES[purpose],
        )
        token = LINK_BEGINS + secrets.token_urlsafe(_SECRET_BYTES)
        await self.links.add(link, digest=link_digest(self.keyed_hash, token))
        return MadeLink(link=link, token=token)


def link_digest(keyed_hash: KeyedHash, token: str) -> bytes:
    """Return what the token of a one-time link is kept as."""
    return keyed_hash.digest(LINK_PURPOSE, token.encode())
