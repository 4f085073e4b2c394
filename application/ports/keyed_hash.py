"""The port to hashes that only this installation can compute."""

from abc import abstractmethod
from typing import Protocol


class KeyedHash(Protocol):
    """HMAC-SHA-256 under keys derived from the ring's hashing secret, which outlives master keys.

    Fast on purpose: it is for values that are long and random (API keys) or only compared (cursors,
    idempotency fingerprints), never for passwords.
    """

    @abstractmethod
    def digest(self, purpose: str, data: bytes) -> bytes:
        """Return 32 bytes; another purpose is another key. Compare with `hmac.compare_digest`."""
