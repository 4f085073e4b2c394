from typing import final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from application.ports.keyed_hash import KeyedHash
from application.ports.receipts import ReceiptSigner


@final
class Ed25519ReceiptSigner(ReceiptSigner):
    """The private key follows from the installation's secret: none is kept, and it survives another master key."""

    def __init__(self, keyed_hash: KeyedHash) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(keyed_hash.digest("receipt", b"ed25519"))

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> bytes:
        return self._key.sign(statement)

    def signed(self, statement: bytes, signature: bytes) -> bool:
        try:
            self._key.public_key().verify(signature, statement)
        except InvalidSignature:
            return False
        return True
