from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from domain.calibration import Calibration, identification_rate, per_comparison_rate
from domain.errors import InvalidValue
from tests.property.curves import calibrations, rates, references

CLOSE = 1e-9
"""Relative: what rounding may do, and a million times less than what a measurement errs."""


@given(calibrations(), rates())
def test_a_threshold_keeps_its_promise_or_is_not_given(curve: Calibration, target: float) -> None:
    found = curve.threshold_at(target)
    if found is None:
        assert target < curve.smallest_rate
        return
    assert target >= curve.smallest_rate * (1 - CLOSE)
    assert found.false_match_rate <= target * (1 + CLOSE)
    assert curve.points[0].threshold <= found.value <= curve.points[-1].threshold


@given(calibrations(), rates(), rates())
def test_a_smaller_rate_never_has_a_lower_threshold(curve: Calibration, one: float, other: float) -> None:
    strict, lax = sorted((one, other))
    lower, higher = curve.threshold_at(lax), curve.threshold_at(strict)
    if higher is not None:
        assert lower is not None
        assert lower.value <= higher.value
        assert lower.false_match_rate >= higher.false_match_rate * (1 - CLOSE)


@given(calibrations(), st.floats(0.0, 1.0))
def test_the_rate_at_a_rates_threshold_is_that_rate(curve: Calibration, place: float) -> None:
    smallest, largest = curve.smallest_rate, curve.points[0].false_match_rate
    assume(smallest <= largest)
    target = min(max(smallest * (largest / smallest) ** place, smallest), largest)
    found = curve.threshold_at(target)
    assert found is not None
    assert found.false_match_rate == pytest.approx(target, rel=CLOSE)
    back = curve.false_match_rate_at(found.value)
    # The stretch may be so steep that one bit of the threshold is more than one bit of the rate.
    assert back is None or back == pytest.approx(target, rel=1e-6)
    assert back is not None or target <= curve.smallest_rate * (1 + 1e-6)


@given(calibrations(), st.data())
def test_the_threshold_at_a_thresholds_rate_is_that_threshold(curve: Calibration, data: st.DataObject) -> None:
    threshold = data.draw(st.floats(curve.points[0].threshold, curve.points[-1].threshold))
    rate = curve.false_match_rate_at(threshold)
    if rate is not None:
        back = curve.threshold_at(rate)
        assert back is not None
        assert back.value == pytest.approx(threshold, abs=1e-9)


@given(calibrations())
def test_the_measured_points_are_met(curve: Calibration) -> None:
    for point in curve.points:
        found = curve.threshold_at(point.false_match_rate)
        if point.false_match_rate >= curve.smallest_rate:
            assert found is not None
            assert found.value == pytest.approx(point.threshold, abs=1e-12)
            assert found.false_match_rate_low == pytest.approx(point.false_match_rate_low, rel=CLOSE, abs=1e-15)
            assert found.false_match_rate_high == pytest.approx(point.false_match_rate_high, rel=CLOSE)


@given(calibrations())
def test_the_smallest_rate_has_a_threshold_and_what_is_smaller_has_none(curve: Calibration) -> None:
    found = curve.threshold_at(curve.smallest_rate)
    assert found is not None
    assert found.value == curve.strictest
    assert curve.threshold_at(curve.smallest_rate * (1 - 1e-6)) is None


@given(calibrations(), st.floats(1.0, 1e6))
def test_a_rate_above_the_curve_gives_its_first_point(curve: Calibration, factor: float) -> None:
    first = curve.points[0]
    target = first.false_match_rate * factor
    assume(target >= curve.smallest_rate)
    found = curve.threshold_at(target)
    assert found is not None
    assert (found.value, found.false_match_rate) == (first.threshold, pytest.approx(first.false_match_rate, rel=CLOSE))


@given(calibrations(), st.floats(-1.0, 1.0))
def test_outside_of_the_curve_no_rate_is_stated(curve: Calibration, threshold: float) -> None:
    rate = curve.false_match_rate_at(threshold)
    if not curve.points[0].threshold <= threshold <= curve.points[-1].threshold:
        assert rate is None
    if rate is not None:
        assert rate >= curve.smallest_rate * (1 - CLOSE)


@given(calibrations(), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_a_higher_threshold_never_misses_fewer(curve: Calibration, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert curve.false_non_match_rate_at(low) <= curve.false_non_match_rate_at(high) + 1e-15


@given(rates(), references)
def test_the_two_rates_are_inverse(rate: float, number: int) -> None:
    assert identification_rate(per_comparison_rate(rate, number), number) == pytest.approx(rate, rel=1e-6)


@given(rates(), references, references)
def test_a_larger_gallery_leaves_less_to_each_comparison(rate: float, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert per_comparison_rate(rate, large) <= per_comparison_rate(rate, small) <= rate * (1 + CLOSE)


@given(rates(), references, references)
def test_a_larger_gallery_is_wrong_more_often(rate: float, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert identification_rate(rate, small) <= identification_rate(rate, large) <= 1.0


@given(rates(), rates(), references)
def test_both_rates_grow_with_each_other(one: float, other: float, number: int) -> None:
    low, high = sorted((one, other))
    assert per_comparison_rate(low, number) <= per_comparison_rate(high, number)
    assert identification_rate(low, number) <= identification_rate(high, number)


@given(rates())
def test_an_empty_gallery_is_never_wrong(rate: float) -> None:
    assert identification_rate(rate, 0) == 0.0
    assert per_comparison_rate(rate, 0) == pytest.approx(rate, rel=CLOSE)


@given(references)
@example(1)
def test_a_threshold_that_everybody_passes_is_always_wrong(number: int) -> None:
    assert identification_rate(1.0, number) == 1.0


@given(calibrations())
def test_a_curve_that_turns_back_is_refused(curve: Calibration) -> None:
    with pytest.raises(InvalidValue):
        replace(curve, points=tuple(reversed(curve.points)))
    with pytest.raises(InvalidValue):
        replace(curve, points=(*curve.points, curve.points[-1]))
    with pytest.raises(InvalidValue):
        replace(curve, points=curve.points[:1])
    with pytest.raises(InvalidValue):
        replace(curve, points=(*curve.points[:-1], replace(curve.points[-1], false_match_rate=0.0)))
    with pytest.raises(InvalidValue):
        replace(curve, points=(replace(curve.points[0], false_match_rate=1.1), *curve.points[1:]))
    with pytest.raises(InvalidValue):
        replace(curve, evidence=replace(curve.evidence, impostor_pairs=0))
