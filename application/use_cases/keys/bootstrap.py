import secrets
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import ApiKeyRepository, GalleryRepository, WorkspaceRepository
from application.ports.transaction import Transaction
from application.use_cases.keys.authenticate import API_KEY_PURPOSE
from application.use_cases.spaces import ServedSpaces
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.credential import ApiKey, ApiKeyId
from domain.gallery import DEFAULT_GALLERY, Gallery, GalleryId, Policy
from domain.permission import DEFAULT_SCOPES, Scope
from domain.workspace import Workspace, WorkspaceId

DEFAULT_WORKSPACE = "default"
KEY_BEGINS = "fp_"
_PREFIX_LENGTH = 11
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrapped:
    """What there is now; `secret` is None where no key was made."""

    workspace: Workspace
    gallery: Gallery
    created: bool
    """Whether the workspace was made by this call."""
    key: ApiKey | None
    secret: str | None
    """The API key itself. It is not stored: this is the only time it is seen."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Make the first workspace, its default gallery and its first API key.

    Run again it changes nothing, unless another key is asked for.
    """

    spaces: ServedSpaces
    workspaces: WorkspaceRepository
    galleries: GalleryRepository
    keys: ApiKeyRepository
    keyed_hash: KeyedHash
    audit: AuditTrail
    transaction: Transaction
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        *,
        name: str = DEFAULT_WORKSPACE,
        new_key: bool = False,
        key_name: str = "first",
        scopes: frozenset[Scope] = DEFAULT_SCOPES,
    ) -> Bootstrapped:
        workspace = await self.workspaces.named(name)
        created = workspace is None
        if workspace is None:
            workspace = Workspace(id=WorkspaceId(self.ids.new()), name=name, created_at=self.clock.now())
            await self.workspaces.add(workspace)
            for place in (INSTANCE, workspace.id):
                self.audit.note(AuditEvent(workspace=place, action=AuditAction.WORKSPACE_CREATED, subject=workspace.id))
            gallery = await self._default_gallery(workspace)
        else:
            gallery = await self.galleries.get(workspace.id, DEFAULT_GALLERY)
        key, secret = None, None
        if created or new_key:
            key, secret = await self._key(workspace, key_name, scopes)
        await self.transaction.commit()
        return Bootstrapped(workspace=workspace, gallery=gallery, created=created, key=key, secret=secret)

    async def _default_gallery(self, workspace: Workspace) -> Gallery:
        now = self.clock.now()
        gallery = Gallery(
            id=GalleryId(self.ids.new()),
            workspace=workspace.id,
            name=DEFAULT_GALLERY,
            space=self.spaces.first.id,
            policy=Policy(),
            created_at=now,
            updated_at=now,
            version=1,
        )
        await self.galleries.add(gallery)
        self.audit.note(
            AuditEvent(
                workspace=workspace.id,
                action=AuditAction.GALLERY_CREATED,
                subject=gallery.id,
                gallery=gallery.id,
            )
        )
        return gallery

    async def _key(self, workspace: Workspace, name: str, scopes: frozenset[Scope]) -> tuple[ApiKey, str]:
        secret = KEY_BEGINS + secrets.token_urlsafe(_SECRET_BYTES)
        key = ApiKey(
            id=ApiKeyId(self.ids.new()),
            workspace=workspace.id,
            name=name,
            prefix=secret[:_PREFIX_LENGTH],
            scopes=scopes,
            created_at=self.clock.now(),
        )
        await self.keys.add(key, self.keyed_hash.digest(API_KEY_PURPOSE, secret.encode()))
        self.audit.note(
            AuditEvent(
                workspace=workspace.id,
                action=AuditAction.KEY_CREATED,
                subject=key.id,
                details={"scopes": sorted(scope.value for scope in scopes)},
            )
        )
        return key, secret
