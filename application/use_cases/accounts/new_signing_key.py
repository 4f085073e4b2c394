from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from application.ports.access_tokens import SigningKey, SigningKeyId, SigningKeys
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from domain.audit import INSTANCE, AuditAction, AuditEvent

ACCESS_LIFETIME: Final = timedelta(minutes=15)
"""How long an access token is good."""

OVERLAP: Final = ACCESS_LIFETIME + timedelta(minutes=1)
"""How long a key that is not used any more is taken: as long as its last token is good, and a minute for clocks."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NewSigningKey:
    """Begin another key to sign access tokens with. A part of other use cases: whoever calls it commits."""

    keys: SigningKeys
    audit: AuditTrail
    ids: IdGenerator
    clock: Clock

    async def __call__(self, *, overlap: timedelta = OVERLAP) -> SigningKey:
        """Return it; those in use until now are taken for `overlap` longer."""
        now = self.clock.now()
        key = SigningKey(id=SigningKeyId(self.ids.new()), created_at=now)
        await self.keys.begin(key, others_retire_at=now + overlap)
        self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.SIGNING_KEY_ROTATED, subject=key.id))
        return key
