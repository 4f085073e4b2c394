from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidValue, PasswordRefused
from domain.user import (
    FREE_FAILURES,
    LONGEST_LOCK,
    LONGEST_PASSWORD,
    SHORTEST_PASSWORD,
    checked_email,
    checked_password,
    compared_email,
    lock_after,
    normalised_password,
)

words = st.text(min_size=1, max_size=40)


@given(st.integers(0, 10_000))
def test_a_lock_never_shrinks_and_never_grows_beyond_its_bound(failures: int) -> None:
    assert timedelta(0) <= lock_after(failures) <= lock_after(failures + 1) <= LONGEST_LOCK


def test_the_first_failures_cost_nothing_and_then_the_lock_doubles() -> None:
    assert lock_after(FREE_FAILURES) == timedelta(0)
    locks = [lock_after(FREE_FAILURES + number).total_seconds() for number in range(1, 6)]
    assert locks == [2, 4, 8, 16, 32]


def test_a_hundred_guesses_take_most_of_a_day() -> None:
    assert sum((lock_after(number) for number in range(100)), timedelta(0)) > timedelta(hours=18)


@given(words)
def test_a_password_is_taken_or_refused_by_its_length(password: str) -> None:
    plain = normalised_password(password)
    long_enough = SHORTEST_PASSWORD <= len(plain) <= LONGEST_PASSWORD and len(set(plain)) > 1
    try:
        assert checked_password(password, common=False) == plain
    except PasswordRefused:
        assert not long_enough
    else:
        assert long_enough


@given(words)
def test_a_password_that_was_taken_is_found_again_as_it_was_hashed(password: str) -> None:
    assert normalised_password(normalised_password(password)) == normalised_password(password)


@pytest.mark.parametrize(
    ("password", "common", "email"),
    [
        ("correct horse battery", True, ""),
        ("aaaaaaaaaaaaaaaa", False, ""),
        ("jane.doe@example.org", False, "Jane.Doe@example.org"),
        ("short", False, ""),
        ("x" * 600 + "y" * 600, False, ""),
    ],
)
def test_a_password_that_is_guessed_first_is_refused(password: str, common: bool, email: str) -> None:  # noqa: FBT001 - a case
    with pytest.raises(PasswordRefused):
        checked_password(password, common=common, email=email)


@given(st.emails())
def test_an_address_is_kept_and_found_without_regard_to_case(email: str) -> None:
    kept = checked_email(f" {email} ")
    assert compared_email(kept) == compared_email(checked_email(email.swapcase()))


@given(st.text(max_size=300))
def test_whatever_is_no_address_is_refused_and_named(email: str) -> None:
    local, at, domain = email.strip().rpartition("@")
    if not (local and at and domain):
        with pytest.raises(InvalidValue) as refused:
            checked_email(email)
        assert refused.value.field == "email"
