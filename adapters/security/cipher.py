"""AES-256-GCM twice: a data key under the master key, and what is kept under the data key."""

from secrets import token_bytes
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapters.security.master_key import KEY_LENGTH, MasterKey
from application.ports.cipher import Cipher, DataKeyId, Place, WrappedKey
from domain.errors import CannotOpen
from domain.workspace import WorkspaceId

OVERHEAD: Final = 29
"""Bytes that an envelope is longer than its plaintext: version 1, nonce 12, tag 16."""

_VERSION: Final = b"\x01"
_NONCE: Final = 12
_BODY: Final = len(_VERSION) + _NONCE


@final
class AesGcmCipher(Cipher):
    """Envelope encryption in the process; the master key never leaves it.

    An envelope is one version byte, a random 96-bit nonce, the ciphertext and its 128-bit tag (NIST SP 800-38D).
    Authenticated with it: the version, the workspace (16 bytes), the subject or the data key's id (16 bytes) and,
    last because it alone varies in length, the purpose. No two places give the same bytes.

    Random nonces set the limits (SP 800-38D, section 8.3: at most 2^32 seals under one key, which keeps the chance
    of a repeated nonce below 2^-32). A data key seals one person's few hundred references; the wrapping key seals
    once a data key, so one master key is good for 2^32 of them. One plaintext is shorter than 64 GiB (section 5.2.1.1).

    No unwrapped key outlives the call that needs it: unwrapping costs about three microseconds, and so destroying a
    wrapped key destroys what it sealed at once.
    """

    def __init__(self, master: MasterKey) -> None:
        self._wrapping = AESGCM(master.derive("wrap"))

    def new_key(self, key: DataKeyId, *, workspace: WorkspaceId) -> WrappedKey:
        wrapped = _sealed(self._wrapping, token_bytes(KEY_LENGTH), _key_place(key, workspace))
        return WrappedKey(id=key, workspace=workspace, wrapped=wrapped)

    def seal(self, plaintext: bytes, *, key: WrappedKey, place: Place) -> bytes:
        return _sealed(self._unwrapped(key, place), plaintext, _data_place(place))

    def open(self, sealed: bytes, *, key: WrappedKey, place: Place) -> bytes:
        return _opened(self._unwrapped(key, place), sealed, _data_place(place))

    def _unwrapped(self, key: WrappedKey, place: Place) -> AESGCM:
        if key.workspace != place.workspace:
            raise CannotOpen("the data key belongs to another workspace")
        return AESGCM(_opened(self._wrapping, key.wrapped, _key_place(key.id, key.workspace)))


def _key_place(key: DataKeyId, workspace: WorkspaceId) -> bytes:
    return _VERSION + workspace.bytes + key.bytes


def _data_place(place: Place) -> bytes:
    return _VERSION + place.workspace.bytes + place.subject.bytes + place.purpose.encode()


def _sealed(key: AESGCM, plaintext: bytes, place: bytes) -> bytes:
    nonce = token_bytes(_NONCE)
    return _VERSION + nonce + key.encrypt(nonce, plaintext, place)


def _opened(key: AESGCM, sealed: bytes, place: bytes) -> bytes:
    if len(sealed) < OVERHEAD or not sealed.startswith(_VERSION):
        raise CannotOpen("this is not a ciphertext of ours, or one of a newer version")
    try:
        return key.decrypt(sealed[len(_VERSION) : _BODY], sealed[_BODY:], place)
    except InvalidTag as error:
        raise CannotOpen("the ciphertext does not open: another key, another place, or changed bytes") from error
