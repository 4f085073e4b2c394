from dataclasses import dataclass, field
from typing import final

from application.ports.clock import Clock
from application.ports.credentials import Credentials
from application.ports.key_uses import KeyUses
from application.ports.keyed_hash import KeyedHash
from application.ports.notices import Listener
from application.use_cases.keys.remembered import Remembered
from domain.credential import ApiKey, Principal, looks_like_key
from domain.errors import CredentialInvalid
from domain.permission import permissions_of

API_KEY_PURPOSE = "api-key"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticate:
    """Tell whose call this is, from its API key.

    Keys are long and random, so that a fast keyed hash protects them; a slow one would cost more than
    everything else a call does. Unknown, expired and revoked keys are refused alike.
    """

    credentials: Credentials
    keyed_hash: KeyedHash
    clock: Clock
    listener: Listener
    uses: KeyUses
    _known: Remembered[bytes, ApiKey] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing that is remembered."""
        object.__setattr__(self, "_known", Remembered[bytes, ApiKey](self.listener))

    async def __call__(self, secret: str) -> Principal:
        """Return the principal of a key. Raises `CredentialInvalid`."""
        if not looks_like_key(secret):
            raise CredentialInvalid("this is no API key: one begins with fp_, and is copied as a whole")
        digest = self.keyed_hash.digest(API_KEY_PURPOSE, secret.encode())
        known = self._known.get(digest)
        key = await self._looked_up(digest) if known is None else known
        now = self.clock.now()
        if key is None or not key.usable(now):
            raise CredentialInvalid("this API key is not known, or no longer good")
        if known is None:
            self.uses.note(key, now)
        return Principal(
            workspace=key.workspace,
            permissions=permissions_of(key.scopes, limited=key.galleries is not None),
            key=key.id,
            scopes=key.scopes,
            galleries=key.galleries,
            ends_at=key.expires_at,
        )

    async def _looked_up(self, digest: bytes) -> ApiKey | None:
        since = self._known.notices
        key = await self.credentials.api_key(digest)
        if key is not None:
            self._known.keep(digest, key, since=since)
        return key
