from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from application.ports.access_tokens import SigningKeys
from application.ports.accounts import AccountPurge
from application.ports.clock import Clock
from application.ports.transaction import Transaction
from application.use_cases.accounts.issue_tokens import REFRESH_LIFETIME

FAILURES_KEPT: Final = timedelta(days=1)
"""Much longer than the longest lock."""
LINKS_KEPT: Final = timedelta(days=1)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeAccounts:
    """Forget sessions, one-time links, failed logins and signing keys that nobody can use any more.

    Sessions are kept for as long again as a refresh token is good, so that one that comes back is known as stolen.
    """

    purge: AccountPurge
    signing_keys: SigningKeys
    transaction: Transaction
    clock: Clock

    async def __call__(self) -> None:
        now = self.clock.now()
        await self.purge.sessions(now - REFRESH_LIFETIME)
        await self.purge.links(now - LINKS_KEPT)
        await self.purge.failures(now - FAILURES_KEPT)
        await self.signing_keys.purge(now - timedelta(minutes=1))
        await self.transaction.commit()
