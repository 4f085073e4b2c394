import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from adapters.security.cipher import AesGcmCipher
from adapters.security.envelope import OVERHEAD
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.secret import KEY_LENGTH, Secret
from adapters.security.wrapping_keys import WrappingKeys
from application.ports.cipher import DataKeyId, Place, WrappedKey
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.key_ring import SETTLED_AFTER
from domain.errors import CannotOpen
from domain.workspace import WorkspaceId

SECRET = Secret(bytes(range(KEY_LENGTH)))
OTHER_SECRET = Secret(bytes(KEY_LENGTH))
FIRST, SECOND = (secret.derive("wrap") for secret in (SECRET, OTHER_SECRET))
OLD_KEY = (
    "0119a5ce98832b4a098d88cc562ddf7cb8af2675be139d37628f70c2d224ab84"
    "f27bc71c1dec91cec86924a5dabc2715040f15f143d3435a19b3ca1dd8"
)
OLD_SEALED = "01fe7e6fc1323d6e38f2b37e6f8440fceda2c6239f414c7f56ea6b00ccf8e9b37c9d6f0fe0"
HOME = WorkspaceId(UUID(int=1))
ELSEWHERE = WorkspaceId(UUID(int=2))
PLACE = Place(workspace=HOME, subject=UUID(int=10), purpose="template")


@pytest.fixture
def cipher() -> AesGcmCipher:
    return AesGcmCipher(WrappingKeys({0: FIRST}))


@pytest.fixture
def key(cipher: AesGcmCipher) -> WrappedKey:
    return cipher.new_key(DataKeyId(UUID(int=100)), workspace=HOME)


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(range(256)) * 4096])
def test_what_was_sealed_opens(cipher: AesGcmCipher, key: WrappedKey, plaintext: bytes) -> None:
    sealed = cipher.seal(plaintext, key=key, place=PLACE)
    assert cipher.open(sealed, key=key, place=PLACE) == plaintext
    assert len(sealed) == len(plaintext) + 29


def test_another_process_with_the_same_keys_opens_it(cipher: AesGcmCipher, key: WrappedKey) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    assert AesGcmCipher(WrappingKeys({0: FIRST})).open(sealed, key=key, place=PLACE) == b"template"


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
        lambda key: AesGcmCipher(WrappingKeys({0: SECOND})).new_key(key.id, workspace=key.workspace),
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


def test_a_key_is_wrapped_by_the_newest_and_opens_with_any() -> None:
    keys = WrappingKeys({0: FIRST, 7: SECOND}, sealing=7)
    cipher = AesGcmCipher(keys)
    older = AesGcmCipher(WrappingKeys({0: FIRST})).new_key(DataKeyId(UUID(int=100)), workspace=HOME)
    newer = cipher.new_key(DataKeyId(UUID(int=101)), workspace=HOME)
    assert (older.wrapped[:1], newer.wrapped[:5]) == (b"\x01", b"\x02\x00\x00\x00\x07")
    for one in (older, newer):
        assert cipher.open(cipher.seal(b"x", key=one, place=PLACE), key=one, place=PLACE) == b"x"


def test_a_rewrapped_key_opens_what_it_sealed_and_needs_the_former_wrapping_key_no_more(
    cipher: AesGcmCipher, key: WrappedKey
) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    again = AesGcmCipher(WrappingKeys({0: FIRST, 1: SECOND}, sealing=1)).rewrapped(key)
    alone = AesGcmCipher(WrappingKeys({1: SECOND}, sealing=1))
    assert alone.open(sealed, key=again, place=PLACE) == b"template"
    with pytest.raises(CannotOpen):
        alone.open(sealed, key=key, place=PLACE)
    with pytest.raises(CannotOpen):
        cipher.open(sealed, key=again, place=PLACE)


def test_any_changed_byte_keeps_a_wrapped_key_shut() -> None:
    cipher = AesGcmCipher(WrappingKeys({0: FIRST, 1: SECOND}, sealing=1))
    key = cipher.new_key(DataKeyId(UUID(int=100)), workspace=HOME)
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    for place in range(len(key.wrapped)):
        for bit in (1, 2, 128):
            changed = bytearray(key.wrapped)
            changed[place] ^= bit
            with pytest.raises(CannotOpen):
                cipher.open(sealed, key=replace(key, wrapped=bytes(changed)), place=PLACE)


def test_a_number_that_may_be_known_elsewhere_already_is_no_damage() -> None:
    keys = WrappingKeys({0: FIRST})
    later = AesGcmCipher(WrappingKeys({1: SECOND}, sealing=1)).new_key(DataKeyId(UUID(int=100)), workspace=HOME)
    keys.renew({0: FIRST}, sealing=0, read_at=time.monotonic() - 60.0)
    with pytest.raises(PortBusy):
        AesGcmCipher(keys).seal(b"template", key=later, place=PLACE)
    keys.renew({0: FIRST}, sealing=0, read_at=time.monotonic())
    with pytest.raises(CannotOpen):
        AesGcmCipher(keys).seal(b"template", key=later, place=PLACE)


def test_nothing_is_sealed_by_a_key_that_another_may_have_followed_by_now() -> None:
    keys = WrappingKeys({0: FIRST})
    cipher = AesGcmCipher(keys)
    key = cipher.new_key(DataKeyId(UUID(int=100)), workspace=HOME)
    keys.renew({0: FIRST}, sealing=0, read_at=time.monotonic() - SETTLED_AFTER)
    with pytest.raises(PortUnavailable, match="cannot be read"):
        cipher.new_key(DataKeyId(UUID(int=101)), workspace=HOME)
    assert cipher.open(cipher.seal(b"x", key=key, place=PLACE), key=key, place=PLACE) == b"x"
    keys.renew({0: FIRST}, sealing=0, read_at=time.monotonic())
    assert cipher.new_key(DataKeyId(UUID(int=101)), workspace=HOME)


def test_without_any_wrapping_key_nothing_is_sealed_and_nothing_called_damaged(
    cipher: AesGcmCipher, key: WrappedKey
) -> None:
    sealed = cipher.seal(b"template", key=key, place=PLACE)
    keys = WrappingKeys({0: FIRST})
    keys.renew({}, sealing=0, read_at=time.monotonic())
    with pytest.raises(PortUnavailable, match="retired"):
        AesGcmCipher(keys).new_key(key.id, workspace=HOME)
    with pytest.raises(PortUnavailable, match="retired"):
        AesGcmCipher(keys).open(sealed, key=key, place=PLACE)


def test_what_was_sealed_before_there_was_a_ring_opens(cipher: AesGcmCipher) -> None:
    # Written down from the first version, under the master key of 0, 1, 2 ... 31.
    key = WrappedKey(id=DataKeyId(UUID(int=100)), workspace=HOME, wrapped=bytes.fromhex(OLD_KEY))
    assert cipher.open(bytes.fromhex(OLD_SEALED), key=key, place=PLACE) == b"template"


def test_a_wrapped_key_is_no_ciphertext_of_data(cipher: AesGcmCipher, key: WrappedKey) -> None:
    with pytest.raises(CannotOpen):
        cipher.open(key.wrapped, key=key, place=Place(workspace=HOME, subject=key.id, purpose=""))


def test_a_keyed_hash_is_the_same_in_every_process() -> None:
    assert HmacKeyedHash(SECRET).digest("api-key", b"x") == HmacKeyedHash(Secret(SECRET.value)).digest("api-key", b"x")
    assert len(HmacKeyedHash(SECRET).digest("api-key", b"")) == 32


def test_keyed_hashes_differ_by_purpose_data_and_secret() -> None:
    hashes = HmacKeyedHash(SECRET)
    assert (
        len(
            {
                hashes.digest("api-key", b"x"),
                hashes.digest("api-key", b"y"),
                hashes.digest("cursor", b"x"),
                hashes.digest("api-keyx", b""),
                HmacKeyedHash(OTHER_SECRET).digest("api-key", b"x"),
            }
        )
        == 5
    )


def test_derived_keys_follow_rfc_5869() -> None:
    # HMAC with an empty salt of 32 zero bytes, then one block of expansion: written out by hand.
    extracted = hmac.digest(bytes(32), SECRET.value, "sha256")
    assert SECRET.derive("wrap") == hmac.digest(extracted, b"facepass/v1/wrap\x01", "sha256")
