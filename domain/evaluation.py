"""How well an embedding space tells people apart, measured on photographs of known people.

Three things are kept apart: what was counted (`Scores`), what follows for one comparison (`curve`,
`operating_point`, `equal_error_rate`), and what follows for a search (`search_trial`). A photograph in
which no face was found takes part in all of them: nobody is recognised in it (failure to acquire counts
as an error, as in ISO/IEC 19795-1:2021 for FRR and FAR).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import NormalDist
from typing import NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from domain.calibration import FEWEST_IMPOSTOR_PAIRS, Calibration, CalibrationPoint, Evidence
from domain.decision import search_criterion
from domain.errors import InvalidValue
from domain.gallery import Policy

STEPS = 50_000
"""Thresholds lie on a grid of 1 / 50,000. Counts at a point of the grid are exact, whatever their number,
and a threshold can be written with five decimals without moving a single pair."""

CURVE_POINTS = 60
"""About twelve a decade over five decades: between two of them log FMR is straight to well under a percent."""
CURVE_FROM = 0.1
"""The largest false match rate of a curve."""

DRAWS = 10
SEARCH_PEOPLE = 1_000
"""The service's bar: of 1,000 strangers searched among 1,000 people, at most 2 % are taken for one of them."""

FEWEST_SEARCHES = 30
"""A share of fewer searches is not stated: the rule of 30 again, for people instead of pairs."""

_BLOCK = 512
"""Rows of similarities at a time: 512 x 100,000 photographs are 200 MB, 512 x 7,500 are 15 MB."""
_BINS = 2 * STEPS + 1

_Vectors = NDArray[np.float32]
_Number = TypeVar("_Number", np.int64, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photographs:
    """Photographs of known people, embedded."""

    vectors: NDArray[np.float32]
    """Shape (N, D), unit length: the photographs with a face."""
    people: NDArray[np.int64]
    """Shape (N,): who is on each, 0..P-1, ascending."""
    missed: NDArray[np.int64]
    """Shape (P,): how many photographs of each person have no face that was found."""

    @classmethod
    def of(cls, vectors: Mapping[str, Sequence[NDArray[np.float32]]], missed: Mapping[str, int]) -> Self:
        """Take the vectors and the number of photographs without a face of each person, by any name for them."""
        names = sorted(set(vectors) | {name for name, count in missed.items() if count})
        stacked = [vector for name in names for vector in vectors.get(name, ())]
        return cls(
            vectors=np.stack(stacked).astype(np.float32) if stacked else np.zeros((0, 1), np.float32),
            people=np.repeat(np.arange(len(names)), [len(vectors.get(name, ())) for name in names]),
            missed=np.array([missed.get(name, 0) for name in names], dtype=np.int64),
        )

    def __post_init__(self) -> None:
        """Raise `InvalidValue` unless shapes agree and people ascend."""
        if self.vectors.ndim != 2 or self.people.shape != (len(self.vectors),):  # noqa: PLR2004 - (N, D)
            raise InvalidValue("vectors have shape (N, D), people (N,)", field="photographs")
        if len(self.people) and (self.people[0] < 0 or self.people[-1] >= len(self.missed)):
            raise InvalidValue("people are numbered 0..P-1", field="photographs.people")
        if (np.diff(self.people) < 0).any():
            raise InvalidValue("photographs are sorted by person", field="photographs.people")

    @property
    def images_of(self) -> NDArray[np.int64]:
        """Shape (P,): photographs of each person, those without a face among them."""
        return np.bincount(self.people, minlength=len(self.missed)) + self.missed

    @property
    def images(self) -> int:
        """How many there are."""
        return int(len(self.people) + self.missed.sum())

    @property
    def genuine_pairs_of(self) -> NDArray[np.int64]:
        """Shape (P,): pairs of photographs of each person."""
        counts = self.images_of
        pairs: NDArray[np.int64] = counts * (counts - 1) // 2
        return pairs

    @property
    def impostor_pairs_of(self) -> NDArray[np.int64]:
        """Shape (P,): pairs of a photograph of each person and one of another; the sum counts every pair twice."""
        counts = self.images_of
        pairs: NDArray[np.int64] = counts * (counts.sum() - counts)
        return pairs

    def only(self, chosen: NDArray[np.bool_]) -> Self:
        """Return the photographs of the people for whom `chosen`, shape (P,), is true."""
        renumbered = np.cumsum(chosen) - 1
        kept = chosen[self.people]
        return type(self)(vectors=self.vectors[kept], people=renumbered[self.people[kept]], missed=self.missed[chosen])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Every pair of photographs, counted by similarity. Bin k holds [k / STEPS - 1, (k + 1) / STEPS - 1)."""

    genuine: NDArray[np.int64]
    """Shape (BINS,): pairs of one person."""
    genuine_by_person: NDArray[np.float64]
    """The same, each person with at least two photographs weighing 1."""
    impostor: NDArray[np.int64]
    """Shape (BINS,): pairs of two people."""
    genuine_pairs: int
    impostor_pairs: int
    """With the pairs that have a photograph without a face, which are in no bin."""
    paired_people: int
    """People with at least two photographs."""

    def false_matches(self) -> NDArray[np.int64]:
        """Impostor pairs at or above each point of the grid, shape (BINS,)."""
        return _at_or_above(self.impostor)

    def true_match_rates(self) -> NDArray[np.float64]:
        """Share of genuine pairs at or above each point of the grid, shape (BINS,); each pair counts the same."""
        return _at_or_above(self.genuine) / max(1, self.genuine_pairs)

    def true_match_rates_by_person(self) -> NDArray[np.float64]:
        """The same, each person with at least two photographs counting the same."""
        # Sums of weights end at 1.0000000002 otherwise.
        return np.minimum(_at_or_above(self.genuine_by_person) / max(1, self.paired_people), 1.0)

    def grid_point(self, rate: float) -> int | None:
        """Return the lowest point of the grid with at most this false match rate.

        None where `rate` stands for fewer than `FEWEST_IMPOSTOR_PAIRS` pairs: a number that rests on
        less is not stated.
        """
        allowed = rate * self.impostor_pairs * (1 + 1e-12)
        if allowed < FEWEST_IMPOSTOR_PAIRS:
            return None
        return int(np.argmax(self.false_matches() <= allowed))


def similarity_of(grid_point: int) -> float:
    """Cosine at a point of the grid."""
    return round(grid_point / STEPS - 1.0, 5)


def compare(photographs: Photographs) -> Scores:
    """Compare every photograph with every other, block by block: flat in memory, as fast as matrix products."""
    weights = 1.0 / np.maximum(photographs.genuine_pairs_of, 1)
    genuine = np.zeros(_BINS, dtype=np.int64)
    by_person = np.zeros(_BINS)
    impostor = np.zeros(_BINS, dtype=np.int64)
    for block in _blocks(photographs):
        bins = _bins(block.similarity)
        impostor += np.bincount(bins[block.impostor], minlength=_BINS)
        alike = bins[block.genuine]
        genuine += np.bincount(alike, minlength=_BINS)
        whose = photographs.people[block.rows[np.nonzero(block.genuine)[0]]]
        by_person += np.bincount(alike, weights=weights[whose], minlength=_BINS)
    pairs = photographs.genuine_pairs_of
    return Scores(
        genuine=genuine,
        genuine_by_person=by_person,
        impostor=impostor,
        genuine_pairs=int(pairs.sum()),
        impostor_pairs=int(photographs.impostor_pairs_of.sum()) // 2,
        paired_people=int((pairs > 0).sum()),
    )


def curve(photographs: Photographs, scores: Scores) -> tuple[CalibrationPoint, ...]:
    """Return the error rates at up to `CURVE_POINTS` thresholds, evenly spaced in log FMR.

    From `CURVE_FROM` down to the smallest rate with `FEWEST_IMPOSTOR_PAIRS` false matches; empty where
    there are not even these. Impostor pairs count the same each, so that a rate means what a client
    meets who compares two photographs; the non-match rate counts each person the same, so that it says
    how one more person will fare and not how the most photographed one does.
    """
    grid = _curve_grid(scores)
    rates = scores.false_matches()[grid] / max(1, scores.impostor_pairs)
    low, high = _intervals(photographs, grid, rates)
    missed = 1.0 - scores.true_match_rates_by_person()[grid]
    return tuple(
        CalibrationPoint(
            threshold=similarity_of(int(point)),
            false_match_rate=float(rate),
            false_match_rate_low=float(least),
            false_match_rate_high=float(most),
            false_non_match_rate=float(miss),
        )
        for point, rate, least, most, miss in zip(grid, rates, low, high, missed, strict=True)
    )


def calibrate(photographs: Photographs, scores: Scores, *, source: str, measured_on: date) -> Calibration:
    """Measure the curve of a space. Raises `InvalidValue` where the photographs are too few for two points."""
    points = curve(photographs, scores)
    if len(points) < 2:  # noqa: PLR2004 - a line needs two points
        raise InvalidValue(
            f"{scores.impostor_pairs:,} pairs of different people are too few to calibrate on: a false match rate is"
            f" stated from {FEWEST_IMPOSTOR_PAIRS} false matches on, and a curve begins at {CURVE_FROM:.0%}",
            field="photographs",
        )
    return Calibration(points=points, evidence=evidence(photographs, scores, source=source, measured_on=measured_on))


def evidence(photographs: Photographs, scores: Scores, *, source: str, measured_on: date) -> Evidence:
    """Say what was measured on."""
    return Evidence(
        source=source,
        people=len(photographs.missed),
        images=photographs.images,
        genuine_pairs=scores.genuine_pairs,
        impostor_pairs=scores.impostor_pairs,
        measured_on=measured_on,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What one false match rate costs."""

    target: float
    """The false match rate aimed at."""
    threshold: float
    """Cosine: the lowest point of the grid with at most this rate."""
    threshold_low: float
    threshold_high: float
    """95 % confidence: the thresholds whose own interval of the false match rate holds the target."""
    false_matches: int
    """Impostor pairs at or above the threshold."""
    true_accept_rate: float
    """Share of genuine pairs at or above it, each pair counting the same."""
    true_accept_rate_by_person: float
    """The same, each person counting the same."""
    true_accept_rate_by_person_low: float
    true_accept_rate_by_person_high: float
    """95 % confidence, over people."""


def operating_point(
    photographs: Photographs, scores: Scores, points: Sequence[CalibrationPoint], *, target: float
) -> OperatingPoint | None:
    """Measure what a false match rate of `target` costs. None where the photographs do not carry it.

    Args:
        photographs: what was compared.
        scores: their `compare`.
        points: their `curve`, whose intervals give those of the threshold.
        target: a false match rate, 0..1.
    """
    grid_point = scores.grid_point(target)
    if grid_point is None or not scores.paired_people:
        return None
    threshold = similarity_of(grid_point)
    low, high = _mean_interval(_true_match_rates_of(photographs, grid_point))
    return OperatingPoint(
        target=target,
        threshold=threshold,
        threshold_low=min(threshold, _crossing(points, [point.false_match_rate_low for point in points], target)),
        threshold_high=max(threshold, _crossing(points, [point.false_match_rate_high for point in points], target)),
        false_matches=int(scores.false_matches()[grid_point]),
        true_accept_rate=float(scores.true_match_rates()[grid_point]),
        true_accept_rate_by_person=float(scores.true_match_rates_by_person()[grid_point]),
        true_accept_rate_by_person_low=low,
        true_accept_rate_by_person_high=high,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedThreshold:
    """A threshold of a calibration, tried on photographs that it may never have seen."""

    target: float
    """The false match rate that the calibration states for it."""
    threshold: float
    false_matches: int
    """Impostor pairs at or above it."""
    false_match_rate: float | None
    """Measured; None where it rests on fewer than 30 false matches."""
    true_accept_rate: float | None
    true_accept_rate_by_person: float | None
    """None where nobody has two photographs, as are all four of these."""
    true_accept_rate_by_person_low: float | None
    true_accept_rate_by_person_high: float | None
    """95 % confidence, over people."""


def stated_threshold(
    photographs: Photographs, scores: Scores, calibration: Calibration, *, target: float
) -> StatedThreshold | None:
    """Measure what the calibration's threshold for `target` gives here. None where it does not state one."""
    stated = calibration.threshold_at(target)
    if stated is None:
        return None
    grid_point = _grid_point_from(stated.value)
    matches = int(scores.false_matches()[grid_point])
    paired = scores.paired_people > 0
    low, high = _mean_interval(_true_match_rates_of(photographs, grid_point)) if paired else (None, None)
    return StatedThreshold(
        target=target,
        threshold=stated.value,
        false_matches=matches,
        false_match_rate=matches / scores.impostor_pairs if matches >= FEWEST_IMPOSTOR_PAIRS else None,
        true_accept_rate=float(scores.true_match_rates()[grid_point]) if paired else None,
        true_accept_rate_by_person=float(scores.true_match_rates_by_person()[grid_point]) if paired else None,
        true_accept_rate_by_person_low=low,
        true_accept_rate_by_person_high=high,
    )


def _grid_point_from(threshold: float) -> int:
    """The lowest point of the grid that is not below `threshold`."""
    return math.ceil((threshold + 1.0) * STEPS - 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualErrorRate:
    """Where both errors are equally frequent: one number for a model, a threshold for nobody."""

    rate: float
    threshold: float


def equal_error_rate(scores: Scores) -> EqualErrorRate | None:
    """Return it, each pair counting the same; None where it rests on fewer than 30 errors of either kind."""
    if not scores.genuine_pairs or not scores.impostor_pairs:
        return None
    missed = 1.0 - scores.true_match_rates()
    matched = scores.false_matches() / scores.impostor_pairs
    crossing = int(np.argmax(missed >= matched))
    rate = float(missed[crossing] + matched[crossing]) / 2.0
    if rate * min(scores.genuine_pairs, scores.impostor_pairs) < FEWEST_IMPOSTOR_PAIRS:
        return None
    return EqualErrorRate(rate=rate, threshold=similarity_of(crossing))


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitResult:
    """Thresholds set on one half of the people, tried on the other."""

    target: float
    """The false match rate stated."""
    factors: tuple[float, ...]
    """Measured rate over stated rate, one a trial; 1 is perfect."""


def split_test(
    photographs: Photographs, *, targets: Sequence[float], splits: int = 5, seed: int = 0
) -> tuple[SplitResult, ...]:
    """Calibrate on a random half of the people, measure on the other half, and the other way round.

    Targets that a half does not carry with 30 false matches are left out.
    """
    random = np.random.default_rng(seed)
    found: dict[float, list[float]] = {target: [] for target in targets}
    people = len(photographs.missed)
    for _ in range(splits):
        chosen = np.zeros(people, dtype=np.bool_)
        chosen[random.permutation(people)[: people // 2]] = True
        halves = [photographs.only(chosen), photographs.only(~chosen)]
        scores = [compare(half) for half in halves]
        for here, there in ((0, 1), (1, 0)):
            try:
                calibration = calibrate(halves[here], scores[here], source="one half", measured_on=date.min)
            except InvalidValue:
                continue
            for target, factor in _factors(calibration, scores[there], targets):
                found[target].append(factor)
    return tuple(SplitResult(target=target, factors=tuple(found[target])) for target in targets if found[target])


def _factors(calibration: Calibration, scores: Scores, targets: Sequence[float]) -> Iterator[tuple[float, float]]:
    for target in targets:
        stated = calibration.threshold_at(target)
        if stated is not None and target * scores.impostor_pairs >= FEWEST_IMPOSTOR_PAIRS:
            matches = int(scores.false_matches()[_grid_point_from(stated.value)])
            yield target, matches / scores.impostor_pairs / target


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One number, measured in several random draws."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPoint:
    """What a search of strangers and of enrolled people gives at one target."""

    target: float
    """The false positive identification rate (FPIR) aimed at."""
    measured_threshold: float | None
    """Cosine at which exactly this share of the strangers' searches, all draws together, finds somebody; None
    where fewer than 30 searches stand behind it."""
    measured_fnir: float | None
    """Share of the enrolled who are not found at it."""
    service_threshold: float | None
    """What the service uses: from the calibration and the gallery's size; None where that does not reach so far."""
    service_fpir: Spread | None
    """Share of the strangers who are taken for somebody at the service's threshold."""
    service_fnir: Spread | None
    """Share of the enrolled who are not found at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTrial:
    """Strangers and enrolled people, looked for among people with one reference each."""

    gallery: int
    """Enrolled people, one photograph each."""
    strangers: int
    """People who are not enrolled, one search each."""
    enrolled_searches: int
    """Enrolled people with another photograph, one search each."""
    draws: int
    rank_one: Spread | None
    """Share of the enrolled whose nearest person is themselves; None where fewer than 30 have a second photograph,
    as is every FNIR below."""
    points: tuple[SearchPoint, ...]


def search_trial(
    photographs: Photographs,
    calibration: Calibration | None,
    *,
    targets: Sequence[float],
    largest: int = SEARCH_PEOPLE,
    draws: int = DRAWS,
    seed: int = 0,
) -> SearchTrial | None:
    """Enrol up to `largest` people, search for as many strangers and for the enrolled; in several random draws.

    People with one photograph are strangers first, people with several are enrolled first. None where
    there are fewer than 30 strangers: a share of less is an anecdote.

    Args:
        photographs: of known people.
        calibration: what the service derives its thresholds from; None leaves these figures out.
        targets: false positive identification rates, 0..1.
        largest: people in the gallery, and strangers, at most.
        draws: random choices of who is what, and of the photographs.
        seed: of the random numbers: the same gives the same figures.
    """
    people = len(photographs.missed)
    strangers = min(largest, people // 2)
    gallery = min(largest, people - strangers)
    if strangers < FEWEST_SEARCHES:
        return None
    random = np.random.default_rng(seed)
    album = _Album(photographs)
    drawn = [_draw(album, random, strangers=strangers, gallery=gallery) for _ in range(draws)]
    searched = len(drawn[0].own)
    return SearchTrial(
        gallery=gallery,
        strangers=strangers,
        enrolled_searches=searched,
        draws=draws,
        rank_one=(
            _spread([float((draw.own > draw.other).mean()) for draw in drawn]) if searched >= FEWEST_SEARCHES else None
        ),
        points=tuple(_search_point(drawn, calibration, gallery, target) for target in targets),
    )


class _Album:
    """Photographs by person, those without a face as vectors of NaN, which are above no threshold."""

    def __init__(self, photographs: Photographs) -> None:
        missed = np.repeat(np.arange(len(photographs.missed)), photographs.missed)
        people = np.concatenate([photographs.people, missed])
        order = np.argsort(people, kind="stable")
        faceless = np.full((len(missed), photographs.vectors.shape[1]), np.nan, dtype=np.float32)
        self.vectors = np.concatenate([photographs.vectors, faceless])[order]
        self.images_of = photographs.images_of
        self._first = np.cumsum(self.images_of) - self.images_of

    def two_of(self, people: NDArray[np.int64], random: np.random.Generator) -> tuple[_Vectors, _Vectors]:
        """One photograph of each, and another one of each who has another; both picked at random."""
        counts = self.images_of[people]
        one = random.integers(0, counts)
        several = counts > 1
        other = (one[several] + random.integers(1, counts[several])) % counts[several]
        first = self._first[people]
        return self.vectors[first + one], self.vectors[first[several] + other]


@dataclass(frozen=True, slots=True, eq=False)
class _Draw:
    strangers: NDArray[np.float32]
    """Similarity of each stranger to the nearest enrolled person."""
    own: NDArray[np.float32]
    """Similarity of each enrolled person's search to their own reference."""
    other: NDArray[np.float32]
    """The same to the nearest other person."""


def _draw(album: _Album, random: np.random.Generator, *, strangers: int, gallery: int) -> _Draw:
    shuffled = random.permutation(len(album.images_of))
    ordered = shuffled[np.argsort(album.images_of[shuffled] > 1, kind="stable")]
    enrolled = ordered[-gallery:]
    references, probes = album.two_of(enrolled, random)
    unknown, _ = album.two_of(ordered[:strangers], random)
    among = _similarities(probes, references)
    rows, own = np.arange(len(probes)), np.flatnonzero(album.images_of[enrolled] > 1)
    own_similarity = among[rows, own].copy()
    among[rows, own] = -np.inf
    return _Draw(
        strangers=_similarities(unknown, references).max(axis=1),
        own=own_similarity,
        other=among.max(axis=1, initial=-np.inf),
    )


def _similarities(probes: _Vectors, references: _Vectors) -> _Vectors:
    found = probes @ references.T
    return np.where(np.isnan(found), np.float32(-np.inf), found)


def _search_point(drawn: Sequence[_Draw], calibration: Calibration | None, gallery: int, target: float) -> SearchPoint:
    nearest = np.sort(np.concatenate([draw.strangers for draw in drawn]))[::-1]
    own = np.concatenate([draw.own for draw in drawn])
    told = len(drawn[0].own) >= FEWEST_SEARCHES
    allowed = int(target * len(nearest) * (1 + 1e-12))
    carried = FEWEST_IMPOSTOR_PAIRS <= allowed < len(nearest)
    measured = float(np.nextafter(nearest[allowed], np.float32(2))) if carried else None
    service = (
        None
        if calibration is None
        else search_criterion(calibration, policy=Policy(), references=gallery, target_fpir=target).threshold
    )
    return SearchPoint(
        target=target,
        measured_threshold=measured,
        measured_fnir=float((own < measured).mean()) if measured is not None and told else None,
        service_threshold=service,
        service_fpir=None
        if service is None
        else _spread([float((draw.strangers >= service).mean()) for draw in drawn]),
        service_fnir=(
            _spread([float((draw.own < service).mean()) for draw in drawn]) if service is not None and told else None
        ),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=math.fsum(values) / len(values), least=min(values), most=max(values))


def _curve_grid(scores: Scores) -> NDArray[np.int64]:
    """Points of the grid, ascending, each with fewer false matches than the one before and 30 at least."""
    counts = scores.false_matches()
    smallest = FEWEST_IMPOSTOR_PAIRS / max(1, scores.impostor_pairs)
    if smallest >= CURVE_FROM:
        return np.zeros(0, dtype=np.int64)
    wanted = np.geomspace(CURVE_FROM, smallest, CURVE_POINTS) * scores.impostor_pairs
    at_most = [int(counts[np.argmax(counts <= want * (1 + 1e-12))]) for want in wanted]
    last = int(counts[counts >= FEWEST_IMPOSTOR_PAIRS].min(initial=at_most[0]))
    levels = sorted({level for level in (*at_most, last) if level >= FEWEST_IMPOSTOR_PAIRS}, reverse=True)
    return np.array([np.argmax(counts <= level) for level in levels], dtype=np.int64)


def _intervals(
    photographs: Photographs, grid: NDArray[np.int64], rates: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % confidence intervals of false match rates, each shape (J,), by leaving out one person at a time.

    A false match rate is a mean over pairs of people, and pairs that share a person are not independent:
    one person who looks like many moves it more than a binomial interval admits. The jackknife over the
    people is consistent for such means (Arvesen 1969, *Jackknifing U-statistics*, Annals of Mathematical
    Statistics 40); it is taken of log FMR, where the distribution is nearer to a normal one. The subset
    bootstrap of Bolle, Ratha and Pankanti (2004, *Error analysis of pattern recognition systems: the
    subsets bootstrap*, CVIU 93) has the same aim and needs a thousand times the work.
    """
    people = len(photographs.missed)
    involved = _false_matches_of(photographs, grid)
    left = involved.sum(axis=0) // 2 - involved
    pairs = photographs.impostor_pairs_of
    pairs_left = pairs.sum() // 2 - pairs
    if people <= 2 or not len(grid):  # noqa: PLR2004 - without one of two people no pair is left
        return np.zeros(len(grid)), np.ones(len(grid))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(left / pairs_left[:, None])
        variance = (people - 1) / people * ((logs - logs.mean(axis=0)) ** 2).sum(axis=0)
        reach = _student(people - 1) * np.sqrt(variance)
        low, high = rates * np.exp(-reach), np.minimum(rates * np.exp(reach), 1.0)
    # Where every false match involves one person, nothing is known of the others.
    unknown = (left <= 0).any(axis=0)
    return np.where(unknown, 0.0, low), np.where(unknown, 1.0, high)


def _false_matches_of(photographs: Photographs, grid: NDArray[np.int64]) -> NDArray[np.int64]:
    """False matches that involve each person, at each point of the grid: shape (P, J)."""
    people, levels = len(photographs.missed), len(grid) + 1
    counts = np.zeros(people * levels, dtype=np.int64)
    for block in _blocks(photographs) if len(grid) else ():
        bins = _bins(block.similarity)
        rows, columns = np.nonzero(block.impostor & (bins >= grid[0]))
        level = np.searchsorted(grid, bins[rows, columns], side="right")
        for involved in (block.rows[rows], block.columns[columns]):
            counts += np.bincount(photographs.people[involved] * levels + level, minlength=len(counts))
    above = np.cumsum(counts.reshape(people, levels)[:, ::-1], axis=1)[:, ::-1]
    return above[:, 1:]


def _true_match_rates_of(photographs: Photographs, grid_point: int) -> NDArray[np.float64]:
    """Share of each person's genuine pairs at or above a point of the grid; only people with any."""
    counts = np.zeros(len(photographs.missed), dtype=np.int64)
    for block in _blocks(photographs, genuine_only=True):
        rows = np.nonzero(block.genuine & (_bins(block.similarity) >= grid_point))[0]
        counts += np.bincount(photographs.people[block.rows[rows]], minlength=len(counts))
    pairs = photographs.genuine_pairs_of
    return counts[pairs > 0] / pairs[pairs > 0]


def _crossing(points: Sequence[CalibrationPoint], rates: Sequence[float], target: float) -> float:
    """Threshold at which a bound of the curve reaches `target`; the curve's end where it does not."""
    descending = np.minimum.accumulate(np.log(np.maximum(rates, np.finfo(np.float64).tiny)))
    thresholds = [point.threshold for point in points]
    return float(np.interp(-math.log(target), -descending, thresholds))


def _mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % confidence interval of a mean of shares, cut to 0..1.

    Where all agree on 0 or 1 the spread says nothing: 3 / n away is what n people can exclude (the rule
    of three; Hanley and Lippman-Hand 1983, JAMA 249).
    """
    people, mean = len(values), float(values.mean())
    if people < 2:  # noqa: PLR2004 - one value has no spread
        return 0.0, 1.0
    reach = _student(people - 1) * float(values.std(ddof=1)) / math.sqrt(people)
    if reach == 0.0:
        reach = 3.0 / people
    return max(0.0, mean - reach), min(1.0, mean + reach)


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun 26.7.5; good to 1 % from 4 degrees on)."""
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


class _Block(NamedTuple):
    rows: NDArray[np.int64]
    """Shape (R,): which photographs."""
    columns: NDArray[np.int64]
    """Shape (C,): those from the first row on."""
    similarity: _Vectors
    """Shape (R, C)."""
    genuine: NDArray[np.bool_]
    """Shape (R, C): pairs of one person, each once."""
    impostor: NDArray[np.bool_]
    """Shape (R, C): pairs of two people, each once."""


def _blocks(photographs: Photographs, *, genuine_only: bool = False) -> Iterator[_Block]:
    vectors, people = photographs.vectors, photographs.people
    for first in range(0, len(vectors), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(vectors)))
        end = int(np.searchsorted(people, people[rows[-1]], side="right")) if genuine_only else len(vectors)
        columns = np.arange(first, end)
        later = columns[None, :] > rows[:, None]
        same = people[rows][:, None] == people[columns][None, :]
        yield _Block(rows, columns, vectors[rows] @ vectors[columns].T, same & later, ~same & later)


def _bins(similarity: _Vectors) -> NDArray[np.int64]:
    scaled = (similarity + np.float32(1.0)) * np.float32(STEPS)
    bins: NDArray[np.int64] = np.clip(scaled, 0, _BINS - 1).astype(np.int64)
    return bins


def _at_or_above(counts: NDArray[_Number]) -> NDArray[_Number]:
    sums: NDArray[_Number] = counts[::-1].cumsum()[::-1]
    return sums
