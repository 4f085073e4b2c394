import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidValue
from domain.gallery import DEFAULT_GALLERY, checked_gallery_name

FIRST = string.ascii_lowercase + string.digits
FURTHER = FIRST + "._-"


@given(st.text(FIRST, min_size=1, max_size=1), st.text(FURTHER, max_size=30))
def test_good_names_are_kept_as_they_are(first: str, further: str) -> None:
    assert checked_gallery_name(first + further) == first + further


@given(st.text() | st.text(FURTHER + "/%A\x00\n ", max_size=70))
def test_a_name_that_is_accepted_can_stand_in_a_path(name: str) -> None:
    try:
        accepted = checked_gallery_name(name)
    except InvalidValue:
        return
    assert quote(accepted, safe="") == accepted == accepted.lower()
    assert 1 <= len(accepted) <= 63
    assert accepted not in {".", ".."}


@given(st.uuids())
def test_no_name_can_be_taken_for_an_id(some_id: object) -> None:
    for written in (str(some_id), str(some_id).replace("-", ""), str(some_id).upper()):
        with pytest.raises(InvalidValue):
            checked_gallery_name(written)


def test_the_default_gallery_has_a_good_name() -> None:
    assert checked_gallery_name(DEFAULT_GALLERY) == DEFAULT_GALLERY


@pytest.mark.parametrize("name", ["a\n", "a" * 64, "", "-a", ".", "..", "_a", "A", "ä", "a b", "a/b", "\u0663"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidValue):
        checked_gallery_name(name)
