import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.calibration import Calibration
from domain.decision import (
    Criterion,
    DecisionReason,
    Outcome,
    TargetKind,
    ThresholdSource,
    capacity,
    margins,
    search_criterion,
    verification_criterion,
)
from domain.gallery import Policy
from tests.property.curves import calibrations, rates, references, similarities

RANK = {Outcome.NO_MATCH: 0, Outcome.UNCERTAIN: 1, Outcome.MATCH: 2}
HIGHEST = 2.0
"""Stands for the threshold that there is not: nothing reaches it."""

templates = st.integers(1, 100)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    fixed = st.none() | similarities
    return Policy(
        target_fmr=draw(rates()),
        target_fpir=draw(rates()),
        verification_threshold=draw(fixed),
        search_threshold=draw(fixed),
    )


@st.composite
def criteria(draw: st.DrawFn) -> Criterion:
    curve, policy = draw(calibrations()), draw(policies())
    asked = {"threshold": draw(st.none() | similarities)}
    target = draw(st.none() | rates())
    if draw(st.booleans()):
        return verification_criterion(curve, policy=policy, references=draw(templates), target_fmr=target, **asked)
    return search_criterion(curve, policy=policy, references=draw(references), target_fpir=target, **asked)


def height(criterion: Criterion) -> float:
    return HIGHEST if criterion.threshold is None else criterion.threshold


@given(criteria(), similarities, similarities)
def test_who_is_more_alike_is_never_decided_lower(criterion: Criterion, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert RANK[criterion.decide(low).outcome] <= RANK[criterion.decide(high).outcome]


@given(criteria(), similarities)
def test_a_match_begins_exactly_at_the_threshold(criterion: Criterion, similarity: float) -> None:
    matched = criterion.decide(similarity).outcome is Outcome.MATCH
    assert matched == (criterion.threshold is not None and similarity >= criterion.threshold)
    if criterion.threshold is not None:
        assert criterion.decide(criterion.threshold).outcome is Outcome.MATCH


@given(criteria(), similarities)
def test_whatever_is_uncertain_says_why_and_nothing_else_does(criterion: Criterion, similarity: float) -> None:
    decision = criterion.decide(similarity)
    assert (decision.outcome is Outcome.UNCERTAIN) == bool(decision.reasons)


@given(criteria())
def test_the_uncertain_band_never_begins_above_the_threshold(criterion: Criterion) -> None:
    if criterion.uncertain_from is not None:
        assert criterion.uncertain_from <= height(criterion)


@given(criteria())
def test_beyond_the_data_the_most_alike_is_uncertain_and_nothing_matches(criterion: Criterion) -> None:
    decision = criterion.decide(1.0)
    if criterion.threshold is None:
        assert decision.outcome is Outcome.UNCERTAIN
        assert decision.reasons == (DecisionReason.BEYOND_CALIBRATION,)
        assert criterion.false_match_rate is None
        assert criterion.false_positive_identification_rate is None
    else:
        assert decision.outcome is Outcome.MATCH


@given(calibrations(), rates(), references)
def test_the_threshold_is_missing_exactly_where_the_data_ends(curve: Calibration, target: float, number: int) -> None:
    criterion = verification_criterion(curve, policy=Policy(), references=number, target_fmr=target)
    assume(abs(target / number / curve.smallest_rate - 1) > 0.5)
    if target / number < curve.smallest_rate / 3:
        assert criterion.threshold is None
    elif target / number > curve.smallest_rate:
        assert criterion.threshold is not None


@given(calibrations(), policies(), references, references)
def test_a_larger_gallery_never_lowers_the_search_threshold(
    curve: Calibration, policy: Policy, one: int, other: int
) -> None:
    small, large = sorted((one, other))
    assert height(search_criterion(curve, policy=policy, references=small)) <= height(
        search_criterion(curve, policy=policy, references=large)
    )


@given(calibrations(), policies(), templates, templates)
def test_more_references_of_a_person_never_lower_the_verification_threshold(
    curve: Calibration, policy: Policy, one: int, other: int
) -> None:
    few, many = sorted((one, other))
    assert height(verification_criterion(curve, policy=policy, references=few)) <= height(
        verification_criterion(curve, policy=policy, references=many)
    )


@given(calibrations(), policies(), rates(), rates(), references)
def test_a_smaller_target_never_lowers_a_threshold(
    curve: Calibration, policy: Policy, one: float, other: float, number: int
) -> None:
    strict, lax = sorted((one, other))
    assert height(search_criterion(curve, policy=policy, references=number, target_fpir=lax)) <= height(
        search_criterion(curve, policy=policy, references=number, target_fpir=strict)
    )
    assert height(verification_criterion(curve, policy=policy, references=number, target_fmr=lax)) <= height(
        verification_criterion(curve, policy=policy, references=number, target_fmr=strict)
    )


@given(calibrations(), policies(), rates(), references)
def test_a_search_is_never_laxer_than_a_verification(
    curve: Calibration, policy: Policy, target: float, number: int
) -> None:
    search = search_criterion(curve, policy=policy, references=number, target_fpir=target)
    assert height(search) >= height(verification_criterion(curve, policy=policy))


@given(calibrations(), policies(), rates(), references)
def test_a_stated_rate_is_within_its_target_or_that_of_the_curves_first_point(
    curve: Calibration, policy: Policy, target: float, number: int
) -> None:
    verification = verification_criterion(curve, policy=policy, references=number, target_fmr=target)
    if verification.false_match_rate is not None:
        assert verification.false_match_rate <= target * (1 + 1e-6)
    search = search_criterion(curve, policy=policy, references=number, target_fpir=target)
    if search.false_positive_identification_rate is not None:
        assert search.false_positive_identification_rate <= target * (1 + 1e-6)


@given(calibrations(), rates(), references)
def test_a_threshold_from_a_target_states_its_rate(curve: Calibration, target: float, number: int) -> None:
    search = search_criterion(curve, policy=Policy(target_fmr=target), references=number, target_fpir=target)
    verification = verification_criterion(curve, policy=Policy(), references=number, target_fmr=target)
    assert (search.threshold is None) == (search.false_positive_identification_rate is None)
    assert (verification.threshold is None) == (verification.false_match_rate is None)
    assert (verification.target, search.target) != (None, None)


@given(calibrations(), policies(), similarities, rates(), references)
def test_the_requests_threshold_goes_before_everything(
    curve: Calibration, policy: Policy, threshold: float, target: float, number: int
) -> None:
    for criterion in (
        verification_criterion(curve, policy=policy, references=number, threshold=threshold, target_fmr=target),
        search_criterion(curve, policy=policy, references=number, threshold=threshold, target_fpir=target),
    ):
        assert (criterion.threshold, criterion.source) == (threshold, ThresholdSource.REQUEST)
        assert criterion.target is None


@given(calibrations(), policies(), rates(), references)
def test_the_requests_target_goes_before_the_gallerys_threshold(
    curve: Calibration, policy: Policy, target: float, number: int
) -> None:
    verification = verification_criterion(curve, policy=policy, references=number, target_fmr=target)
    search = search_criterion(curve, policy=policy, references=number, target_fpir=target)
    assert verification.source is search.source is ThresholdSource.REQUEST
    assert verification.target is not None
    assert search.target is not None
    assert (verification.target.kind, verification.target.value) == (TargetKind.FMR, target)
    assert (search.target.kind, search.target.value) == (TargetKind.FPIR, target)


@given(calibrations(), references, references)
def test_a_gallery_that_has_outgrown_its_pack_does_not_shrink_into_it_by_growing(
    curve: Calibration, one: int, other: int
) -> None:
    small, large = sorted((one, other))
    before, after = (capacity(curve, policy=Policy(), references=number) for number in (small, large))
    assert before.outgrown <= after.outgrown
    if before.expected_fnir is not None and after.expected_fnir is not None:
        assert before.expected_fnir <= after.expected_fnir + 1e-12


@given(calibrations(), similarities, references)
def test_what_is_missed_is_stated_up_to_where_the_curve_ends(curve: Calibration, threshold: float, number: int) -> None:
    said = capacity(curve, policy=Policy(search_threshold=threshold), references=number)
    if threshold > curve.points[-1].threshold:
        assert (said.expected_fnir, said.outgrown) == (None, True)
    else:
        assert said.expected_fnir == curve.false_non_match_rate_at(threshold)


@given(st.lists(similarities, max_size=20))
def test_margins_are_distances_to_the_next_best(found: list[float]) -> None:
    best_first = sorted(found, reverse=True)
    distances = margins(best_first)
    assert len(distances) == len(best_first)
    assert distances[-1:] == [None][: len(best_first)]
    assert all(distance is not None and distance >= 0.0 for distance in distances[:-1])
    assert sum(distance for distance in distances if distance is not None) == pytest.approx(
        best_first[0] - best_first[-1] if best_first else 0.0, abs=1e-9
    )
