"""A long random secret, and the keys that follow from it."""

from dataclasses import dataclass, field
from typing import Final, final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_LENGTH: Final = 32
"""Bytes: 256 bits, the key length of AES-256 and the block that HKDF-SHA-256 gives."""


@final
@dataclass(frozen=True, slots=True)
class Secret:
    """32 random bytes that are never used themselves, only what is derived from them."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise `ValueError` unless `value` has `KEY_LENGTH` bytes."""
        if len(self.value) != KEY_LENGTH:
            raise ValueError(f"a secret has {KEY_LENGTH} bytes, this one has {len(self.value)}")

    def derive(self, purpose: str) -> bytes:
        """Return the 32-byte key for `purpose`: HKDF-SHA-256 (RFC 5869), the purpose as `info`.

        No salt: the input is uniformly random already (RFC 5869, section 3.1).
        """
        return HKDF(SHA256(), KEY_LENGTH, salt=None, info=f"facepass/v1/{purpose}".encode()).derive(self.value)
