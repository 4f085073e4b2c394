from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.access_tokens import SigningKey
from application.ports.transaction import Transaction
from application.use_cases.accounts.new_signing_key import OVERLAP, NewSigningKey


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RotateSigningKey:
    """Sign access tokens with another key from now on.

    Tokens of the key before are good until they expire; at once, none of them is good any more within ten seconds, and
    clients refresh theirs.
    """

    new_key: NewSigningKey
    transaction: Transaction

    async def __call__(self, *, at_once: bool = False) -> SigningKey:
        key = await self.new_key(overlap=timedelta(0) if at_once else OVERLAP)
        await self.transaction.commit()
        return key
