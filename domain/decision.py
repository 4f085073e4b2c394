"""What follows from a similarity, and with which error rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.calibration import Calibration, identification_rate, per_comparison_rate
from domain.gallery import DEFAULT_TARGET_FMR, DEFAULT_TARGET_FPIR, Policy

UNCERTAIN_FMR = 1e-2
"""Below the threshold of this rate a verification is `no_match`; between it and the target, `uncertain`."""

FNIR_BOUND = 0.3
"""A gallery has outgrown its pack where more than this share of its people would not be found at the default
target. The bound is a choice, not a measurement: at nearly a third missed, asking again no longer mends it."""


class Outcome(StrEnum):
    """What was decided."""

    MATCH = "match"
    NO_MATCH = "no_match"
    UNCERTAIN = "uncertain"


class DecisionReason(StrEnum):
    """Why a decision is not a plain one."""

    BETWEEN_THRESHOLDS = "between_thresholds"
    """Verification: more alike than at FMR 1e-2, less than at the target."""
    BELOW_SEARCH_THRESHOLD = "below_search_threshold"
    """Search: above the verification threshold of one reference, but strangers reach that too often among so many."""
    BEYOND_CALIBRATION = "beyond_calibration"
    """The target is smaller than what the pack's data can show."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The same shape everywhere: answers, webhooks, audit."""

    outcome: Outcome
    reasons: tuple[DecisionReason, ...] = ()


class ThresholdSource(StrEnum):
    """Who chose the threshold or its target."""

    REQUEST = "request"
    GALLERY = "gallery"
    PACK = "pack"


class TargetKind(StrEnum):
    """Which error rate a threshold aims at."""

    FMR = "fmr"
    FPIR = "fpir"


@dataclass(frozen=True, slots=True)
class Target:
    """An error rate that a threshold was derived from."""

    kind: TargetKind
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """Everything a decision rests on. Built once a question, applied to every candidate."""

    threshold: float | None
    """Cosine at which a match begins; None where the data does not carry the target: then nothing matches."""
    source: ThresholdSource
    target: Target | None
    """None for a fixed threshold."""
    false_match_rate: float | None
    """Verification: the rate at the threshold, None where unknown."""
    false_positive_identification_rate: float | None
    """Search: the rate of the whole search at the threshold, None where unknown or for a verification."""
    uncertain_from: float | None
    """Cosine at which `uncertain` begins; None where there is no such band."""
    uncertain_reason: DecisionReason

    def decide(self, similarity: float) -> Decision:
        """Apply it to a cosine in [-1, 1]: `similarity >= threshold` matches."""
        if self.threshold is not None and similarity >= self.threshold:
            return Decision(Outcome.MATCH)
        if self.uncertain_from is not None and similarity >= self.uncertain_from:
            return Decision(Outcome.UNCERTAIN, (self.uncertain_reason,))
        return Decision(Outcome.NO_MATCH)


def verification_criterion(
    calibration: Calibration,
    *,
    policy: Policy,
    references: int = 1,
    threshold: float | None = None,
    target_fmr: float | None = None,
) -> Criterion:
    """Return how a verification against a person with `references` references is decided.

    The request's threshold goes before its target, both before the gallery's fixed threshold, that
    before the gallery's target. A person with k references gives an impostor k tries, so the rate of
    one comparison is the target shared among them (as in a search), and the stated rate is that of
    the whole question.
    """
    fixed, source = _fixed(threshold, target_fmr, policy.verification_threshold)
    if fixed is not None:
        rate = calibration.false_match_rate_at(fixed)
        return Criterion(
            threshold=fixed,
            source=source,
            target=None,
            false_match_rate=None if rate is None else identification_rate(rate, references),
            false_positive_identification_rate=None,
            uncertain_from=None,
            uncertain_reason=DecisionReason.BETWEEN_THRESHOLDS,
        )
    target, source = _target(target_fmr, policy.target_fmr, DEFAULT_TARGET_FMR)
    found = calibration.threshold_at(per_comparison_rate(target, references))
    begins = calibration.threshold_at(per_comparison_rate(max(UNCERTAIN_FMR, target), references))
    return Criterion(
        threshold=None if found is None else found.value,
        source=source,
        target=Target(TargetKind.FMR, target),
        false_match_rate=None if found is None else identification_rate(found.false_match_rate, references),
        false_positive_identification_rate=None,
        # Where not even that rate is carried, whatever lies above the data cannot be told apart.
        uncertain_from=calibration.strictest if begins is None else begins.value,
        uncertain_reason=(DecisionReason.BEYOND_CALIBRATION if found is None else DecisionReason.BETWEEN_THRESHOLDS),
    )


def search_criterion(
    calibration: Calibration,
    *,
    policy: Policy,
    references: int,
    threshold: float | None = None,
    target_fpir: float | None = None,
) -> Criterion:
    """Return how a search among `references` references is decided.

    The threshold of a target grows with the number of references and never falls below that of a
    verification. People above the verification threshold and below it are `uncertain`.
    """
    fixed, source = _fixed(threshold, target_fpir, policy.search_threshold)
    if fixed is not None:
        rate = calibration.false_match_rate_at(fixed)
        return Criterion(
            threshold=fixed,
            source=source,
            target=None,
            false_match_rate=rate,
            false_positive_identification_rate=None if rate is None else identification_rate(rate, references),
            uncertain_from=None,
            uncertain_reason=DecisionReason.BELOW_SEARCH_THRESHOLD,
        )
    target, source = _target(target_fpir, policy.target_fpir, DEFAULT_TARGET_FPIR)
    verification = verification_criterion(calibration, policy=policy)
    floor = verification.threshold
    found = calibration.threshold_at(per_comparison_rate(target, references))
    value = None if found is None or floor is None else max(found.value, floor)
    rate = None if value is None else calibration.false_match_rate_at(value)
    return Criterion(
        threshold=value,
        source=source,
        target=Target(TargetKind.FPIR, target),
        false_match_rate=rate,
        false_positive_identification_rate=None if rate is None else identification_rate(rate, references),
        uncertain_from=verification.uncertain_from if floor is None else floor,
        uncertain_reason=(
            DecisionReason.BEYOND_CALIBRATION if value is None else DecisionReason.BELOW_SEARCH_THRESHOLD
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Whether a gallery has outgrown its pack."""

    references: int
    expected_fnir: float | None
    """Share of enrolled people that a search at the gallery's target or fixed threshold would not match, with
    one reference each; None where the data does not reach that far."""
    outgrown: bool
    """More than `FNIR_BOUND` would be missed, or nothing measured says that it is fewer."""


def capacity(calibration: Calibration, *, policy: Policy, references: int) -> Capacity:
    """Judge a gallery of `references` references: expected FNIR over `FNIR_BOUND`, or beyond the data.

    Beyond the data is a target that it does not carry, or a fixed threshold above the curve's last point. There the
    rate is known to be no smaller than at that point and nothing else, so it is not stated, and the gallery counts as
    outgrown. Below the first point, where fewer are missed, that point's rate is stated.
    """
    criterion = search_criterion(calibration, policy=policy, references=references)
    if criterion.threshold is None or criterion.threshold > calibration.points[-1].threshold:
        return Capacity(references=references, expected_fnir=None, outgrown=True)
    expected = calibration.false_non_match_rate_at(criterion.threshold)
    return Capacity(references=references, expected_fnir=expected, outgrown=expected > FNIR_BOUND)


def margins(similarities: Sequence[float]) -> list[float | None]:
    """Return the distance of each person to the next one, best first; None for the last."""
    following = [*similarities[1:], None][: len(similarities)]
    return [None if after is None else best - after for best, after in zip(similarities, following, strict=True)]


def _fixed(
    requested: float | None, requested_target: float | None, of_policy: float | None
) -> tuple[float | None, ThresholdSource]:
    if requested is not None:
        return requested, ThresholdSource.REQUEST
    if requested_target is not None:
        return None, ThresholdSource.REQUEST
    return of_policy, ThresholdSource.GALLERY


def _target(requested: float | None, of_policy: float, default: float) -> tuple[float, ThresholdSource]:
    if requested is not None:
        return requested, ThresholdSource.REQUEST
    return of_policy, ThresholdSource.PACK if of_policy == default else ThresholdSource.GALLERY
