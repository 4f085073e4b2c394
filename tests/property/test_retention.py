from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidValue
from domain.retention import LONGEST_RETENTION, NO_END, Retention

moments = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9000, 1, 1)).map(  # noqa: DTZ001 - made UTC
    lambda moment: moment.replace(tzinfo=UTC)
)
days = st.integers(1, LONGEST_RETENTION)
retentions = st.builds(Retention, days=st.none() | days, consent_expires_at=st.none() | moments)


@given(moments)
def test_nobody_is_due_for_whom_no_end_was_set(since: datetime) -> None:
    assert NO_END.erase_after(since) is None
    assert NO_END.consented(since)


@given(retentions, moments)
def test_the_first_of_the_two_ends_counts(retention: Retention, since: datetime) -> None:
    due = retention.erase_after(since)
    ends = [retention.consent_expires_at]
    if retention.days is not None:
        ends.append(since + timedelta(days=retention.days))
    assert due == min((end for end in ends if end is not None), default=None)


@given(retentions, moments, moments)
def test_whoever_may_not_be_compared_is_due(retention: Retention, since: datetime, now: datetime) -> None:
    due = retention.erase_after(since)
    assert retention.consented(now) or (due is not None and due <= now)


@given(retentions, moments, st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_another_enrolment_makes_nobody_due_sooner(retention: Retention, since: datetime, later: timedelta) -> None:
    before, after = retention.erase_after(since), retention.erase_after(since + later)
    assert (before is None) == (after is None)
    assert before is None or (after is not None and before <= after)


@given(retentions, retentions)
def test_the_own_goes_before_the_gallery_s_each_by_itself(own: Retention, gallery: Retention) -> None:
    both = own.before(gallery)
    assert both.days == (gallery.days if own.days is None else own.days)
    assert both.consent_expires_at == (own.consent_expires_at or gallery.consent_expires_at)
    assert own.before(NO_END) == own
    assert NO_END.before(gallery) == gallery


def test_a_retention_beyond_the_calendar_ends_with_it() -> None:
    since = datetime(9999, 1, 1, tzinfo=UTC)
    assert Retention(days=LONGEST_RETENTION).erase_after(since) == datetime.max.replace(tzinfo=UTC)


def test_times_are_kept_in_utc() -> None:
    zone = timezone(timedelta(hours=2))
    retention = Retention(consent_expires_at=datetime(2030, 1, 1, 12, tzinfo=zone))
    assert retention.consent_expires_at == datetime(2030, 1, 1, 10, tzinfo=UTC)
    assert str(retention.consent_expires_at).endswith("+00:00")


@pytest.mark.parametrize("wrong", [0, -1, LONGEST_RETENTION + 1])
def test_days_are_between_one_and_a_hundred_years(wrong: int) -> None:
    with pytest.raises(InvalidValue, match="retention_days"):
        Retention(days=wrong)


def test_a_time_without_its_offset_is_refused() -> None:
    with pytest.raises(InvalidValue, match="offset"):
        Retention(consent_expires_at=datetime(2030, 1, 1))  # noqa: DTZ001 - what is refused
