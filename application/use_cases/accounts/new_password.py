from dataclasses import dataclass
from typing import final

from application.ports.passwords import CommonPasswords, PasswordHasher
from domain.user import checked_password, normalised_password


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NewPassword:
    """Hold a password to the rules and hash it. A part of other use cases, called outside of any transaction."""

    common: CommonPasswords
    hasher: PasswordHasher

    def checked(self, password: str, *, email: str, field: str = "password") -> str:
        """Return it as it is hashed. Raises `PasswordRefused`."""
        common = self.common.contains(normalised_password(password))
        return checked_password(password, common=common, email=email, field=field)

    async def __call__(self, password: str, *, email: str) -> str:
        """Return its hash. Raises `PasswordRefused` and `PortBusy`."""
        return await self.hasher.hashed(self.checked(password, email=email))
