import hmac
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from adapters.security.cipher import OVERHEAD, AesGcmCipher
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.master_key import KEY_LENGTH, MasterKey
from application.ports.cipher import DataKeyId, Place, WrappedKey
from domain.errors import CannotOpen
from domain.workspace import WorkspaceId

MASTER = MasterKey(bytes(range(KEY_LENGTH)))
OTHER_MASTER = MasterKey(bytes(KEY_LENGTH))
HOME = WorkspaceId(UUID(int=1))
ELSEWHERE = WorkspaceId(UUID(int=2))
PLACE = Place(workspace=HOME, subject=UUID(int=10), purpose="template")


@pytest.fixture
def cipher() -> AesGcmCipher:
    return AesGcmCipher(MASTER)


@pytest.fixture
def key(cipher: AesGcmCipher) -> WrappedKey:
    return cipher.new_key(DataKeyId(UUID(int=100)), workspace=HOME)


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(range(256)) * 4096])
def test_what_was_sealed_opens(cipher: AesGcmCipher, key: WrappedKey, plaintext: bytes) -> None:
    sealed = cipher.seal(plaintext, key=key, place=PLACE)
    assert cipher.open(sealed, key=key, place=PLACE) == plaintext
    assert len(sealed) == len(plaintext) + 29


def test_another_process_with_the_same_master_key_opens_it(cipher: AesGcmCipher, key: WrappedKey) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    assert AesGcmCipher(MasterKey(MASTER.secret)).open(sealed, key=key, place=PLACE) == b"template"


def test_sealing_twice_gives_two_ciphertexts(cipher: AesGcmCipher, key: WrappedKey) -> None:
    sealed = {cipher.seal(b"template", key=key, place=PLACE) for _ in range(100)}
    assert len(sealed) == 100


def test_the_plaintext_does_not_show(cipher: AesGcmCipher, key: WrappedKey) -> None:
    assert b"template" not in cipher.seal(b"template" * 10, key=key, place=PLACE)


@pytest.mark.parametrize(
    "place",
    [
        replace(PLACE, subject=UUID(int=11)),
        replace(PLACE, workspace=ELSEWHERE),
        replace(PLACE, purpose="image"),
        replace(PLACE, purpose=""),
        replace(PLACE, purpose="template\x00"),
        replace(PLACE, workspace=WorkspaceId(PLACE.subject), subject=PLACE.workspace),
    ],
)
def test_it_opens_at_no_other_place(cipher: AesGcmCipher, key: WrappedKey, place: Place) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    with pytest.raises(CannotOpen):
        cipher.open(sealed, key=replace(key, workspace=place.workspace), place=place)
    with pytest.raises(CannotOpen):
        cipher.open(sealed, key=key, place=place)


def test_it_opens_with_no_other_key(cipher: AesGcmCipher, key: WrappedKey) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    with pytest.raises(CannotOpen):
        cipher.open(sealed, key=cipher.new_key(key.id, workspace=HOME), place=PLACE)


def test_any_changed_byte_keeps_it_shut(cipher: AesGcmCipher, key: WrappedKey) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(CannotOpen):
            cipher.open(bytes(changed), key=key, place=PLACE)


def test_no_part_of_it_opens(cipher: AesGcmCipher, key: WrappedKey) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    for length in range(len(sealed)):
        with pytest.raises(CannotOpen):
            cipher.open(sealed[:length], key=key, place=PLACE)
    with pytest.raises(CannotOpen):
        cipher.open(sealed + b"\x00", key=key, place=PLACE)


@pytest.mark.parametrize("wrapped", [b"", b"\x01" * OVERHEAD, b"\x01" * (OVERHEAD + KEY_LENGTH)])
def test_a_destroyed_key_opens_nothing_even_where_it_was_just_used(
    cipher: AesGcmCipher, key: WrappedKey, wrapped: bytes
) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    assert cipher.open(sealed, key=key, place=PLACE) == b"template"
    with pytest.raises(CannotOpen):
        cipher.open(sealed, key=replace(key, wrapped=wrapped), place=PLACE)


@pytest.mark.parametrize(
    "foreign",
    [
        lambda key: replace(key, id=DataKeyId(UUID(int=101))),
        lambda key: replace(key, workspace=ELSEWHERE),
        lambda key: AesGcmCipher(OTHER_MASTER).new_key(key.id, workspace=key.workspace),
    ],
    ids=["another id", "another workspace", "another master key"],
)
def test_a_foreign_key_neither_seals_nor_opens(
    cipher: AesGcmCipher, key: WrappedKey, foreign: Callable[[WrappedKey], WrappedKey]
) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    with pytest.raises(CannotOpen):
        cipher.seal(b"template", key=foreign(key), place=PLACE)
    with pytest.raises(CannotOpen):
        cipher.open(sealed, key=foreign(key), place=PLACE)


def test_a_key_of_one_workspace_seals_nothing_in_another(cipher: AesGcmCipher, key: WrappedKey) -> None:
    with pytest.raises(CannotOpen):
        cipher.seal(b"template", key=key, place=replace(PLACE, workspace=ELSEWHERE))


def test_new_keys_differ_and_do_not_show(cipher: AesGcmCipher) -> None:
    keys = {cipher.new_key(DataKeyId(UUID(int=100)), workspace=HOME).wrapped for _ in range(100)}
    assert len(keys) == 100
    assert {len(wrapped) for wrapped in keys} == {KEY_LENGTH + OVERHEAD}


def test_a_wrapped_key_is_no_ciphertext_of_data(cipher: AesGcmCipher, key: WrappedKey) -> None:
    with pytest.raises(CannotOpen):
        cipher.open(key.wrapped, key=key, place=Place(workspace=HOME, subject=key.id, purpose=""))


def test_a_keyed_hash_is_the_same_in_every_process() -> None:
    assert HmacKeyedHash(MASTER).digest("api-key", b"x") == HmacKeyedHash(MasterKey(MASTER.secret)).digest(
        "api-key", b"x"
    )
    assert len(HmacKeyedHash(MASTER).digest("api-key", b"")) == 32


def test_keyed_hashes_differ_by_purpose_data_and_master_key() -> None:
    hashes = HmacKeyedHash(MASTER)
    assert (
        len(
            {
                hashes.digest("api-key", b"x"),
                hashes.digest("api-key", b"y"),
                hashes.digest("cursor", b"x"),
                hashes.digest("api-keyx", b""),
                HmacKeyedHash(OTHER_MASTER).digest("api-key", b"x"),
            }
        )
        == 5
    )


def test_derived_keys_follow_rfc_5869() -> None:
    # HMAC with an empty salt of 32 zero bytes, then one block of expansion: written out by hand.
    extracted = hmac.digest(bytes(32), MASTER.secret, "sha256")
    assert MASTER.derive("wrap") == hmac.digest(extracted, b"facepass/v1/wrap\x01", "sha256")
