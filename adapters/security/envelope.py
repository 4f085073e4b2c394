"""What a ciphertext of ours looks like."""

from secrets import token_bytes
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.errors import CannotOpen

OVERHEAD: Final = 29
"""Bytes that an envelope is longer than its plaintext: version 1, nonce 12, tag 16."""

VERSION: Final = b"\x01"

_NONCE: Final = 12
_TAG: Final = 16


def sealed(key: AESGCM, plaintext: bytes, place: bytes, *, head: bytes = VERSION) -> bytes:
    """Return `head`, a random 96-bit nonce, the ciphertext and its 128-bit tag (NIST SP 800-38D).

    Authenticated with it: the head, and behind it the place.
    """
    nonce = token_bytes(_NONCE)
    return head + nonce + key.encrypt(nonce, plaintext, head + place)


def opened(key: AESGCM, envelope: bytes, place: bytes, *, head: bytes = VERSION) -> bytes:
    """Return the plaintext. Raises `CannotOpen`."""
    body = len(head) + _NONCE
    if len(envelope) < body + _TAG or not envelope.startswith(head):
        raise CannotOpen("this is not a ciphertext of ours, or one of a newer version")
    try:
        return key.decrypt(envelope[len(head) : body], envelope[body:], head + place)
    except InvalidTag as error:
        raise CannotOpen("the ciphertext does not open: another key, another place, or changed bytes") from error
