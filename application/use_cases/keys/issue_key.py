import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import final

from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import ApiKeyRepository
from application.use_cases.keys.authenticate import API_KEY_PURPOSE
from domain.credential import KEY_BYTES, PREFIX_LENGTH, ApiKey, ApiKeyId, checked_key_name, key_of
from domain.gallery import GalleryId
from domain.permission import Scope
from domain.user import UserId
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A new key, and its secret: it is not stored, so this is the only time it is seen."""

    key: ApiKey
    secret: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IssueKey:
    """Make an API key, whoever may have it.

    A part of other use cases: whoever calls it has looked whether it may be made, and commits.
    """

    keys: ApiKeyRepository
    keyed_hash: KeyedHash
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        name: str,
        scopes: frozenset[Scope],
        galleries: frozenset[GalleryId] | None = None,
        expires_at: datetime | None = None,
        created_by: UserId | None = None,
        rotated_from: ApiKeyId | None = None,
    ) -> IssuedKey:
        """Return it. Raises `InvalidValue` for its name."""
        secret = key_of(secrets.token_bytes(KEY_BYTES))
        key = ApiKey(
            id=ApiKeyId(self.ids.new()),
            workspace=workspace,
            name=checked_key_name(name),
            prefix=secret[:PREFIX_LENGTH],
            scopes=scopes,
            galleries=galleries,
            created_at=self.clock.now(),
            created_by=created_by,
            expires_at=expires_at,
            rotated_from=rotated_from,
        )
        await self.keys.add(key, self.keyed_hash.digest(API_KEY_PURPOSE, secret.encode()))
        return IssuedKey(key=key, secret=secret)
