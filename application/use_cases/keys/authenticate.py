import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import final

from application.ports.clock import Clock
from application.ports.credentials import Credentials
from application.ports.keyed_hash import KeyedHash
from domain.credential import Principal
from domain.errors import CredentialInvalid
from domain.permission import permissions_of

REMEMBERED_SECONDS = 1.0
"""How long a good key is taken on trust: a revocation holds everywhere within this time."""

REMEMBERED_KEYS = 4096
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
    _known: OrderedDict[bytes, tuple[float, Principal]] = field(default_factory=OrderedDict, init=False)

    async def __call__(self, secret: str) -> Principal:
        """Return the principal of a key. Raises `CredentialInvalid`."""
        digest = self.keyed_hash.digest(API_KEY_PURPOSE, secret.encode())
        known = self._known.get(digest)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        key = await self.credentials.api_key(digest)
        if key is None or not key.usable(self.clock.now()):
            self._known.pop(digest, None)
            raise CredentialInvalid("this API key is not known, or no longer good")
        principal = Principal(
            workspace=key.workspace,
            permissions=permissions_of(key.scopes),
            key=key.id,
            scopes=key.scopes,
            galleries=key.galleries,
        )
        self._known[digest] = (time.monotonic() + REMEMBERED_SECONDS, principal)
        while len(self._known) > REMEMBERED_KEYS:
            self._known.popitem(last=False)
        return principal
