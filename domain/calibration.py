"""What a similarity means: the measured error rates of one embedding space."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from datetime import date

from domain.errors import InvalidValue

FEWEST_IMPOSTOR_PAIRS = 30
"""A rate that rests on fewer false matches is not stated.

The rule of 30 (Doddington et al., *The NIST speaker recognition evaluation*, Speech Communication 31,
2000): with 30 errors seen, the true rate lies within 30 % of the measured one with 90 % confidence.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationPoint:
    """The measured error rates at one threshold."""

    threshold: float
    """Cosine; a pair matches at `similarity >= threshold`."""
    false_match_rate: float
    """Share of impostor pairs that match, 0..1."""
    false_match_rate_low: float
    false_match_rate_high: float
    """95 % confidence interval, resampled by person: pairs that share a person are not independent."""
    false_non_match_rate: float
    """Share of genuine pairs that do not match, 0..1; photographs without a face found count as misses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a curve was measured on."""

    source: str
    """The photographs, in words: data set, subset, kind."""
    people: int
    images: int
    genuine_pairs: int
    impostor_pairs: int
    measured_on: date


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedThreshold:
    """A threshold that data carries."""

    value: float
    """Cosine."""
    false_match_rate: float
    """At this threshold, for one comparison."""
    false_match_rate_low: float
    false_match_rate_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The curve of one embedding space: threshold against error rates, with its evidence.

    Between two points the logarithm of the false match rate is interpolated linearly: on every model
    measured the curve is nearly straight on that scale, so the error stays far below the interval.
    """

    points: tuple[CalibrationPoint, ...]
    """Ascending thresholds, so descending false match rates; at least two."""
    evidence: Evidence

    def __post_init__(self) -> None:
        """Raise `InvalidValue` unless thresholds ascend and error rates run with them."""
        if len(self.points) < 2:  # noqa: PLR2004 - a line needs two points
            raise InvalidValue("a calibration curve has at least two points", field="calibration.points")
        for lower, upper in zip(self.points, self.points[1:], strict=False):
            if not lower.threshold < upper.threshold:
                raise InvalidValue("thresholds ascend", field="calibration.points")
            if not lower.false_match_rate > upper.false_match_rate > 0.0:
                raise InvalidValue("false match rates descend and stay above 0", field="calibration.points")
            if lower.false_non_match_rate > upper.false_non_match_rate:
                raise InvalidValue("false non-match rates ascend", field="calibration.points")
        if self.evidence.impostor_pairs < 1:
            raise InvalidValue("a curve rests on impostor pairs", field="calibration.evidence")
        if self.points[0].false_match_rate > 1.0:
            raise InvalidValue("a false match rate is at most 1", field="calibration.points")

    @property
    def smallest_rate(self) -> float:
        """The smallest false match rate that the data carries (`FEWEST_IMPOSTOR_PAIRS` false matches)."""
        carried = FEWEST_IMPOSTOR_PAIRS / self.evidence.impostor_pairs
        return max(self.points[-1].false_match_rate, carried)

    @property
    def strictest(self) -> float:
        """The threshold of `smallest_rate`: the highest cosine whose rate the data carries."""
        found = self.threshold_at(self.smallest_rate)
        return self.points[-1].threshold if found is None else found.value

    def threshold_at(self, false_match_rate: float) -> CalibratedThreshold | None:
        """Return the threshold at which one comparison of strangers matches with this probability.

        None where the rate is smaller than the data carries: nothing is extrapolated downwards. A rate
        above the curve's first point gives that point, which is stricter than asked.
        """
        if false_match_rate < self.smallest_rate * (1 - 1e-9):
            return None
        first = self.points[0]
        if false_match_rate >= first.false_match_rate:
            return _stated(first.threshold, first, first, 0.0)
        # Rates descend along the curve: the first point whose rate is at or below the target ends the stretch.
        after = bisect_left(self.points, -false_match_rate, key=lambda point: -point.false_match_rate)
        after = min(after, len(self.points) - 1)
        left, right = self.points[after - 1], self.points[after]
        share = (math.log(left.false_match_rate) - math.log(false_match_rate)) / (
            math.log(left.false_match_rate) - math.log(right.false_match_rate)
        )
        share = min(max(share, 0.0), 1.0)
        value = left.threshold + share * (right.threshold - left.threshold)
        # Rounding may end a bit beyond the stretch, where the curve, or the order of two targets, would end too.
        return _stated(min(value, right.threshold), left, right, share)

    def false_match_rate_at(self, threshold: float) -> float | None:
        """Return the rate for one comparison at `threshold`, None outside what the data carries."""
        if not self.points[0].threshold <= threshold <= self.points[-1].threshold:
            return None
        left, right, share = self._around(threshold)
        rate = _between(left.false_match_rate, right.false_match_rate, share)
        return rate if rate >= self.smallest_rate * (1 - 1e-9) else None

    def false_non_match_rate_at(self, threshold: float) -> float:
        """Return the share of genuine pairs below `threshold`, 0..1; the nearest end outside the curve."""
        if threshold <= self.points[0].threshold:
            return self.points[0].false_non_match_rate
        if threshold >= self.points[-1].threshold:
            return self.points[-1].false_non_match_rate
        left, right, share = self._around(threshold)
        return left.false_non_match_rate + share * (right.false_non_match_rate - left.false_non_match_rate)

    def _around(self, threshold: float) -> tuple[CalibrationPoint, CalibrationPoint, float]:
        after = bisect_left(self.points, threshold, key=lambda point: point.threshold)
        after = min(max(after, 1), len(self.points) - 1)
        left, right = self.points[after - 1], self.points[after]
        return left, right, (threshold - left.threshold) / (right.threshold - left.threshold)


def per_comparison_rate(false_positive_identification_rate: float, references: int) -> float:
    """Return the false match rate of one comparison at which a search among `references` has this FPIR.

    A search of a stranger is a false positive if any of N comparisons is: FPIR = 1 - (1 - FMR)^N for
    independent comparisons (ISO/IEC 19795-1:2021, annex on identification), so FMR = 1 - (1 - FPIR)^(1/N).
    Comparisons of one probe are positively dependent, which makes the true FPIR smaller, not larger.
    """
    return -math.expm1(math.log1p(-false_positive_identification_rate) / max(1, references))


def identification_rate(false_match_rate: float, references: int) -> float:
    """Return the FPIR of a search among `references`: the inverse of `per_comparison_rate`."""
    if false_match_rate >= 1.0:
        return 1.0 if references else 0.0
    return -math.expm1(references * math.log1p(-false_match_rate))


def _stated(value: float, left: CalibrationPoint, right: CalibrationPoint, share: float) -> CalibratedThreshold:
    return CalibratedThreshold(
        value=value,
        false_match_rate=_between(left.false_match_rate, right.false_match_rate, share),
        false_match_rate_low=_between(left.false_match_rate_low, right.false_match_rate_low, share),
        false_match_rate_high=_between(left.false_match_rate_high, right.false_match_rate_high, share),
    )


def _between(left: float, right: float, share: float) -> float:
    if left <= 0.0 or right <= 0.0:
        return left + share * (right - left)
    return math.exp(math.log(left) + share * (math.log(right) - math.log(left)))
