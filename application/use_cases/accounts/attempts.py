import math
from dataclasses import dataclass
from typing import final

from application.ports.accounts import LoginFailures
from application.ports.clock import Clock
from application.ports.errors import PortBusy
from application.ports.passwords import PasswordHasher
from application.ports.transaction import Transaction
from domain.errors import TooManyAttempts
from domain.user import LONGEST_PASSWORD, normalised_password


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Try a password against an account, as often as the lock allows. A part of other use cases.

    A try is counted and committed before the password is looked at: neither many at one moment nor many nodes get more
    tries than one after another would. No connection is held while the password is hashed.
    """

    failures: LoginFailures
    hasher: PasswordHasher
    transaction: Transaction
    clock: Clock

    async def __call__(self, email: str, password: str, password_hash: str | None) -> bool:
        """Tell whether it is right; no hash takes as long. A right one's failures are forgotten by whoever commits.

        Raises `TooManyAttempts` while the address is locked, and `PortBusy`, which counts as no try.
        """
        now = self.clock.now()
        until = await self.failures.begin(email, now=now)
        await self.transaction.commit()
        if until is not None:
            raise TooManyAttempts(
                "too many failed logins: wait before the next try", retry_after=math.ceil((until - now).total_seconds())
            )
        plain = normalised_password(password)
        if len(plain) > LONGEST_PASSWORD:
            password_hash, plain = None, ""  # none is so long; it takes as long as any other
        try:
            return await self.hasher.verified(plain, password_hash)
        except PortBusy:
            await self.failures.take_back(email, begun=now)
            await self.transaction.commit()
            raise
