import base64
import hashlib
import hmac
from typing import final
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.ports.keyed_hash import KeyedHash
from domain.errors import InvalidCursor
from entrypoints.http.cursors import Cursors


@final
class PlainKeyedHash(KeyedHash):
    """HMAC under a key that everybody knows."""

    def __init__(self, key: bytes = b"key") -> None:
        self._key = key

    def digest(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\x00" + data, hashlib.sha256)


CURSORS = Cursors(PlainKeyedHash())
filters = st.tuples(st.sampled_from(["people", "references"]), st.uuids(), st.none() | st.text(max_size=20))


@given(st.uuids(), filters)
def test_a_cursor_leads_back_to_where_it_was_written(after: UUID, bound: tuple[object, ...]) -> None:
    written = CURSORS.written(after, *bound)
    assert written is not None
    assert CURSORS.read(written, *bound) == after


@given(st.uuids(), filters, filters)
def test_a_cursor_of_other_filters_is_refused(
    after: UUID, bound: tuple[object, ...], others: tuple[object, ...]
) -> None:
    written = CURSORS.written(after, *bound)
    if bound == others:
        assert CURSORS.read(written, *others) == after
    else:
        with pytest.raises(InvalidCursor):
            CURSORS.read(written, *others)


@given(st.uuids(), st.integers(0, 31), st.integers(0, 7))
def test_a_cursor_with_one_bit_changed_is_refused(after: UUID, byte: int, bit: int) -> None:
    written = CURSORS.written(after, "people")
    assert written is not None
    raw = bytearray(base64.urlsafe_b64decode(written + "=" * (-len(written) % 4)))
    raw[byte] ^= 1 << bit
    with pytest.raises(InvalidCursor):
        CURSORS.read(base64.urlsafe_b64encode(raw).decode().rstrip("="), "people")


@given(st.text(max_size=60))
def test_whatever_a_client_makes_up_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        CURSORS.read(text, "people")


def test_filters_cannot_be_shifted_into_each_other() -> None:
    written = CURSORS.written(UUID(int=1), "people", "a", "b")
    for others in (("people", "a\x00'b'"), ("people", "ab", ""), ("people", "a', 'b"), ("people", "b", "a")):
        with pytest.raises(InvalidCursor):
            CURSORS.read(written, *others)


def test_a_cursor_of_another_installation_is_refused() -> None:
    written = Cursors(PlainKeyedHash(b"other")).written(UUID(int=1), "people")
    with pytest.raises(InvalidCursor):
        CURSORS.read(written, "people")


def test_a_list_without_more_has_no_cursor() -> None:
    assert CURSORS.written(None, "people") is None
    assert CURSORS.read(None, "people") is None
