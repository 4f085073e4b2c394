"""AES-256-GCM twice: a data key under a wrapping key, and what is kept under the data key."""

from secrets import token_bytes
from typing import Final, final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapters.security.envelope import VERSION, opened, sealed
from adapters.security.secret import KEY_LENGTH
from adapters.security.wrapping_keys import WrappingKeys
from application.ports.cipher import Cipher, DataKeyId, Place, WrappedKey
from domain.errors import CannotOpen
from domain.workspace import WorkspaceId

_NUMBERED: Final = b"\x02"
_NUMBER: Final = 4


@final
class AesGcmCipher(Cipher):
    """Envelope encryption in the process; the wrapping keys never leave it.

    An envelope is one version byte, a random 96-bit nonce, the ciphertext and its 128-bit tag (NIST SP 800-38D).
    Authenticated with it: the version, the workspace (16 bytes), the subject or the data key's id (16 bytes) and,
    last because it alone varies in length, the purpose. No two places give the same bytes. A wrapped key says by
    which wrapping key it was wrapped: version 1 by number 0, version 2 by the number in the four bytes behind it,
    which are authenticated as well.

    Random nonces set the limits (SP 800-38D, section 8.3: at most 2^32 seals under one key, which keeps the chance
    of a repeated nonce below 2^-32). A data key seals one person's few hundred references; a wrapping key seals once
    a data key, so it is good for 2^32 of them. One plaintext is shorter than 64 GiB (section 5.2.1.1).

    No unwrapped data key outlives the call that needs it: unwrapping costs about three microseconds, and so
    destroying a wrapped key destroys what it sealed at once.
    """

    def __init__(self, wrapping: WrappingKeys) -> None:
        self._wrapping = wrapping

    def new_key(self, key: DataKeyId, *, workspace: WorkspaceId) -> WrappedKey:
        return self._wrap(token_bytes(KEY_LENGTH), key, workspace)

    def rewrapped(self, key: WrappedKey) -> WrappedKey:
        return self._wrap(self._secret(key), key.id, key.workspace)

    def seal(self, plaintext: bytes, *, key: WrappedKey, place: Place) -> bytes:
        return sealed(self._unwrapped(key, place), plaintext, _data_place(place))

    def open(self, sealed: bytes, *, key: WrappedKey, place: Place) -> bytes:
        return opened(self._unwrapped(key, place), sealed, _data_place(place))

    def _wrap(self, secret: bytes, key: DataKeyId, workspace: WorkspaceId) -> WrappedKey:
        number, wrapping = self._wrapping.sealing
        wrapped = sealed(wrapping, secret, _key_place(key, workspace), head=head_of(number))
        return WrappedKey(id=key, workspace=workspace, wrapped=wrapped)

    def _unwrapped(self, key: WrappedKey, place: Place) -> AESGCM:
        if key.workspace != place.workspace:
            raise CannotOpen("the data key belongs to another workspace")
        return AESGCM(self._secret(key))

    def _secret(self, key: WrappedKey) -> bytes:
        number = _number_of(key.wrapped)
        place = _key_place(key.id, key.workspace)
        return opened(self._wrapping.numbered(number), key.wrapped, place, head=head_of(number))


def head_of(number: int) -> bytes:
    """Return what a data key begins with that was wrapped by the wrapping key of this number."""
    return _NUMBERED + number.to_bytes(_NUMBER) if number else VERSION


def _number_of(wrapped: bytes) -> int:
    if wrapped.startswith(_NUMBERED):
        return int.from_bytes(wrapped[len(_NUMBERED) : len(_NUMBERED) + _NUMBER])
    return 0


def _key_place(key: DataKeyId, workspace: WorkspaceId) -> bytes:
    return workspace.bytes + key.bytes


def _data_place(place: Place) -> bytes:
    return place.workspace.bytes + place.subject.bytes + place.purpose.encode()
