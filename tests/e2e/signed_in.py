from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
from dishka import AsyncContainer, Scope

from application.ports.access_tokens import AccessClaims, AccessTokens, SigningKey, SigningKeyId, SigningKeys
from application.ports.accounts import MembershipRepository, SessionRepository, UserRepository
from application.ports.id_generator import IdGenerator
from application.ports.transaction import Transaction
from application.use_cases.keys.issue_key import IssueKey
from application.use_cases.workspaces.new_workspace import NewWorkspace
from domain import credential
from domain.permission import Role
from domain.user import Session, SessionId, User, UserId
from domain.workspace import Membership, WorkspaceId
from tests.e2e.in_process import InProcess, Served

MINUTES = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A user with a session and an access token of it."""

    user: UserId
    session: SessionId
    token: str
    email: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


async def sign_in(
    container: AsyncContainer,
    *,
    roles: Mapping[WorkspaceId, Role] | None = None,
    administrator: bool = False,
    issued: datetime | None = None,
) -> SignedIn:
    """Make a user, past every use case, and sign them in."""
    now = datetime.now(UTC)
    async with container(scope=Scope.REQUEST) as unit:
        ids = await unit.get(IdGenerator)
        user = User(
            id=UserId(ids.new()),
            email=f"{uuid4().hex}@example.org",
            name="",
            administrator=administrator,
            has_password=False,
            created_at=now,
            updated_at=now,
            version=1,
        )
        session = Session(
            id=SessionId(ids.new()),
            user=user.id,
            created_at=now,
            last_used_at=now,
            expires_at=now + timedelta(days=1),
            agent="",
        )
        await (await unit.get(UserRepository)).add(user, password_hash=None)
        await (await unit.get(SessionRepository)).add(session, refresh_digest=uuid4().bytes * 2)
        for workspace, role in (roles or {}).items():
            await (await unit.get(MembershipRepository)).add(
                Membership(workspace=workspace, user=user.id, role=role, created_at=now)
            )
        await (await unit.get(Transaction)).commit()
    token = await signed(container, user.id, session.id, issued=issued or now)
    return SignedIn(user=user.id, session=session.id, token=token, email=user.email)


async def signed(container: AsyncContainer, user: UserId, session: SessionId, *, issued: datetime) -> str:
    """Return a token by the service's own signer."""
    async with container(scope=Scope.REQUEST) as unit:
        keys = await unit.get(SigningKeys)
        key = await keys.in_use()
        if key is None:
            now = datetime.now(UTC)
            key = SigningKey(id=SigningKeyId(uuid4()), created_at=now)
            await keys.begin(key, others_retire_at=now)
            await (await unit.get(Transaction)).commit()
    claims = AccessClaims(user=user, session=session, issued_at=issued, expires_at=issued + MINUTES)
    return (await container.get(AccessTokens)).signed(claims, key=key.id)


async def another_workspace(container: AsyncContainer, owner: UserId | None = None) -> WorkspaceId:
    """Make a workspace with its default gallery."""
    async with container(scope=Scope.REQUEST) as unit:
        workspace, _ = await (await unit.get(NewWorkspace))(name=uuid4().hex, owner=owner)
        await (await unit.get(Transaction)).commit()
    return workspace.id


@asynccontextmanager
async def in_another_workspace(service: InProcess) -> AsyncIterator[InProcess]:
    """The same service, called with a key for everything in a workspace of its own."""
    workspace = await another_workspace(service.container)
    async with service.container(scope=Scope.REQUEST) as unit:
        issued = await (await unit.get(IssueKey))(workspace=workspace, name="x", scopes=frozenset(credential.Scope))
        await (await unit.get(Transaction)).commit()
    async with caller(service, {"X-API-Key": issued.secret}) as client:
        yield replace(service, workspace=workspace, client=client)


def caller(service: Served, headers: Mapping[str, str]) -> httpx.AsyncClient:
    """Return a client with these credentials and no others."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(service.app),
        base_url="http://facepass/api/v1",
        headers=dict(headers),
        timeout=60.0,
    )
