import hmac
from typing import final

from adapters.security.secret import Secret
from application.ports.keyed_hash import KeyedHash


@final
class HmacKeyedHash(KeyedHash):
    """HMAC-SHA-256 (RFC 2104), each purpose with a key of its own."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        # Purposes are names in our code, never a client's words: there are as many as there are callers.
        self._keys: dict[str, bytes] = {}

    def digest(self, purpose: str, data: bytes) -> bytes:
        key = self._keys.get(purpose)
        if key is None:
            key = self._keys[purpose] = self._secret.derive(f"hash/{purpose}")
        return hmac.digest(key, data, "sha256")
