"""The port through which calls are recognised."""

from abc import abstractmethod
from typing import Protocol

from domain.credential import ApiKey


class Credentials(Protocol):
    """What is committed about credentials, read without a transaction."""

    @abstractmethod
    async def api_key(self, digest: bytes) -> ApiKey | None:
        """Return the key whose secret has this keyed hash, revoked or expired as it may be, else None.

        Raises `PortUnavailable` where the database is gone.
        """
