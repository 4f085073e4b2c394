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
        self._begun: dict[str, hmac.HMAC] = {}

    def digest(self, purpose: str, data: bytes) -> bytes:
        begun = self._begun.get(purpose)
        if begun is None:
            key = self._secret.derive(f"hash/{purpose}")
            begun = self._begun[purpose] = hmac.new(key, digestmod="sha256")
        # A copy of what has taken the key in already, and short data: the interpreter is not let go, as `hmac.digest`
        # does each time, for a thread of inference to take it.
        digest = begun.copy()
        digest.update(data)
        return digest.digest()
