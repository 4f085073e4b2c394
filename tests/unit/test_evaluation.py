from datetime import date
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.calibration import FEWEST_IMPOSTOR_PAIRS, Calibration, CalibrationPoint, Evidence
from domain.errors import InvalidValue
from domain.evaluation import (
    CURVE_FROM,
    STEPS,
    Photographs,
    Scores,
    calibrate,
    compare,
    curve,
    equal_error_rate,
    operating_point,
    search_trial,
    similarity_of,
    split_test,
    stated_threshold,
)

DAY = date(2026, 1, 1)


def crowd(
    people: int, images: int, *, noise: float = 0.1, missed: int = 0, dimension: int = 32, seed: int = 0
) -> Photographs:
    """People at random places of the sphere, photographs around them; of each person `missed` have no face."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(people, 1, dimension))
    vectors = centres + noise * random.normal(size=(people, images, dimension))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return Photographs.of(
        {f"{name:05}": list(found.astype(np.float32)) for name, found in enumerate(vectors)},
        {f"{name:05}": missed for name in range(people)},
    )


def of_sizes(sizes: list[tuple[int, int]], seed: int) -> Photographs:
    random = np.random.default_rng(seed)
    found = {}
    for name, (count, _) in enumerate(sizes):
        vectors = random.normal(size=(count, 8))
        found[f"{name:05}"] = list((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    return Photographs.of(found, {f"{name:05}": missed for name, (_, missed) in enumerate(sizes)})


def every_pair(photographs: Photographs) -> tuple[dict[int, list[float]], dict[tuple[int, int], list[float]]]:
    """The plain way: genuine similarities by person, impostor similarities by pair of people, misses at -1."""
    album = [(int(person), vector) for person, vector in zip(photographs.people, photographs.vectors, strict=True)]
    album += [(person, None) for person, missed in enumerate(photographs.missed) for _ in range(missed)]
    genuine: dict[int, list[float]] = {}
    impostor: dict[tuple[int, int], list[float]] = {}
    for (one, left), (other, right) in combinations(album, 2):
        similarity = -1.0 if left is None or right is None else float(left @ right)
        if one == other:
            genuine.setdefault(one, []).append(similarity)
        else:
            impostor.setdefault((min(one, other), max(one, other)), []).append(similarity)
    return genuine, impostor


sizes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=2, max_size=8).filter(
    lambda drawn: sum(found for found, _ in drawn) > 0
)


class TestCompare:
    @settings(max_examples=50, deadline=None)
    @given(sizes=sizes, seed=st.integers(0, 1000), threshold=st.sampled_from([-0.51236, 0.00118, 0.30002, 0.71238]))
    def test_counts_are_those_of_every_single_pair(
        self, sizes: list[tuple[int, int]], seed: int, threshold: float
    ) -> None:
        photographs = of_sizes(sizes, seed)
        genuine, impostor = every_pair(photographs)
        scores = compare(photographs)
        grid_point = round((threshold + 1) * STEPS)
        of_strangers = [similarity for pair in impostor.values() for similarity in pair]
        of_one = [similarity for person in genuine.values() for similarity in person]
        assert scores.impostor_pairs == len(of_strangers)
        assert scores.genuine_pairs == len(of_one)
        assert scores.paired_people == len(genuine)
        assert scores.false_matches()[grid_point] == sum(similarity >= threshold for similarity in of_strangers)
        shares = [np.mean([similarity >= threshold for similarity in person]) for person in genuine.values()]
        if shares:
            assert scores.true_match_rates()[grid_point] == pytest.approx(np.mean(np.array(of_one) >= threshold))
            assert scores.true_match_rates_by_person()[grid_point] == pytest.approx(np.mean(shares))

    def test_more_photographs_than_a_block_holds_change_nothing(self) -> None:
        photographs = crowd(400, 3)
        scores = compare(photographs)
        similarity = photographs.vectors.astype(np.float64) @ photographs.vectors.T.astype(np.float64)
        same = photographs.people[:, None] == photographs.people[None, :]
        upper = np.triu(np.ones_like(same), 1)
        for threshold in (-0.20002, 0.10004, 0.50006, 0.90002):
            grid_point = round((threshold + 1) * STEPS)
            assert scores.false_matches()[grid_point] == ((similarity >= threshold) & ~same & upper).sum()
            genuine = ((similarity >= threshold) & same & upper).sum()
            assert scores.true_match_rates()[grid_point] == genuine / scores.genuine_pairs

    def test_the_same_photograph_twice_matches_at_one(self) -> None:
        vector = np.ones(4, dtype=np.float32) / 2
        scores = compare(Photographs.of({"a": [vector, vector]}, {}))
        assert scores.true_match_rates()[2 * STEPS] == 1.0

    def test_the_person_with_most_photographs_does_not_decide_for_all(self) -> None:
        near, far = np.eye(8, dtype=np.float32)[:2]
        many = [near] * 40
        poor = [near, far]
        scores = compare(Photographs.of({"many": many, "poor": poor, "poorer": poor}, {}))
        middle = round(1.5 * STEPS)
        assert scores.true_match_rates()[middle] == pytest.approx(780 / 782)
        assert scores.true_match_rates_by_person()[middle] == pytest.approx(1 / 3)

    def test_a_photograph_without_a_face_is_a_miss_and_never_a_match(self) -> None:
        whole = compare(crowd(20, 3))
        missing = compare(crowd(20, 3, missed=1))
        assert missing.genuine_pairs == 20 * 6
        assert missing.true_match_rates()[0] == pytest.approx(0.5)
        assert missing.impostor_pairs == 190 * 16
        assert missing.false_matches()[0] == whole.false_matches()[0] == 190 * 9

    def test_photographs_that_are_not_sorted_by_person_are_refused(self) -> None:
        with pytest.raises(InvalidValue, match="sorted"):
            Photographs(
                vectors=np.eye(2, dtype=np.float32), people=np.array([1, 0]), missed=np.zeros(2, dtype=np.int64)
            )


class TestThresholds:
    def test_known_rates_come_out_right(self) -> None:
        # On the sphere in three dimensions the cosine of two random directions is uniform (Archimedes).
        photographs = crowd(3000, 1, dimension=3)
        scores = compare(photographs)
        for rate in (1e-1, 1e-2, 1e-3):
            grid_point = scores.grid_point(rate)
            assert grid_point is not None
            assert similarity_of(grid_point) == pytest.approx(1 - 2 * rate, abs=0.15 * rate)

    def test_a_rate_below_thirty_false_matches_has_no_threshold(self) -> None:
        scores = compare(crowd(100, 1))
        assert scores.impostor_pairs == 4950
        assert scores.grid_point(30 / 4950) is not None
        assert scores.grid_point(29 / 4950) is None

    def test_the_threshold_is_the_lowest_of_the_grid_that_keeps_the_rate(self) -> None:
        scores = compare(crowd(200, 2))
        grid_point = scores.grid_point(1e-2)
        assert grid_point is not None
        matches = scores.false_matches()
        assert matches[grid_point] <= 1e-2 * scores.impostor_pairs < matches[grid_point - 1]

    def test_equal_error_rate_lies_where_both_errors_meet(self) -> None:
        photographs = crowd(200, 4, noise=0.8, dimension=16)
        scores = compare(photographs)
        found = equal_error_rate(scores)
        assert found is not None
        grid_point = round((found.threshold + 1) * STEPS)
        assert scores.false_matches()[grid_point] / scores.impostor_pairs == pytest.approx(found.rate, rel=0.05)
        assert 1 - scores.true_match_rates()[grid_point] == pytest.approx(found.rate, rel=0.05)

    def test_no_equal_error_rate_from_a_few_pairs(self) -> None:
        assert equal_error_rate(compare(crowd(5, 2))) is None
        assert equal_error_rate(compare(crowd(100, 1))) is None


class TestCurve:
    @settings(max_examples=30, deadline=None)
    @given(people=st.integers(2, 60), images=st.integers(1, 4), missed=st.integers(0, 1), seed=st.integers(0, 1000))
    def test_every_curve_is_one_a_calibration_accepts(self, people: int, images: int, missed: int, seed: int) -> None:
        photographs = crowd(people, images, noise=0.5, missed=missed, seed=seed)
        scores = compare(photographs)
        points = curve(photographs, scores)
        for point in points:
            assert FEWEST_IMPOSTOR_PAIRS / scores.impostor_pairs <= point.false_match_rate <= CURVE_FROM
            assert point.false_match_rate_low <= point.false_match_rate <= point.false_match_rate_high
        if len(points) > 1:
            calibration = calibrate(photographs, scores, source="random", measured_on=DAY)
            assert calibration.points == points
            smallest = calibration.threshold_at(calibration.smallest_rate)
            assert smallest is not None

    def test_it_reaches_down_to_thirty_false_matches(self) -> None:
        photographs = crowd(400, 1)
        scores = compare(photographs)
        points = curve(photographs, scores)
        assert 50 <= len(points) <= 61
        assert points[-1].false_match_rate * scores.impostor_pairs == pytest.approx(30, abs=0.5)

    def test_the_threshold_of_a_rate_read_off_the_curve_is_the_measured_one(self) -> None:
        photographs = crowd(600, 2)
        scores = compare(photographs)
        calibration = calibrate(photographs, scores, source="random", measured_on=DAY)
        for rate in (3e-2, 1e-2, 2e-3, 1e-3):
            stated = calibration.threshold_at(rate)
            assert stated is not None
            grid_point = round((stated.value + 1) * STEPS)
            assert scores.false_matches()[grid_point] / scores.impostor_pairs == pytest.approx(rate, rel=0.03)

    def test_too_few_people_say_so(self) -> None:
        photographs = crowd(10, 1)
        with pytest.raises(InvalidValue, match="45 pairs of different people are too few"):
            calibrate(photographs, compare(photographs), source="ten", measured_on=DAY)

    def test_the_interval_covers_the_true_rate_about_as_often_as_it_says(self) -> None:
        # Uniform cosines in three dimensions: at cosine 0.98 one pair in a hundred matches.
        covered = 0
        for seed in range(60):
            photographs = crowd(120, 3, noise=0.01, dimension=3, seed=seed)
            points = curve(photographs, compare(photographs))
            near = min(points, key=lambda point: abs(point.threshold - 0.98))
            truth = (1 - near.threshold) / 2
            covered += near.false_match_rate_low <= truth <= near.false_match_rate_high
        assert 50 <= covered <= 60

    def test_photographs_that_share_a_person_widen_the_interval(self) -> None:
        def width(photographs: Photographs) -> float:
            points = curve(photographs, compare(photographs))
            near = min(points, key=lambda point: abs(point.false_match_rate - 1e-2))
            return float(np.log(near.false_match_rate_high / near.false_match_rate_low))

        assert width(crowd(60, 10, noise=0.01)) > 2 * width(crowd(600, 1, noise=0.01))

    def test_one_person_in_every_false_match_leaves_the_rate_unknown(self) -> None:
        random = np.random.default_rng(0)
        axes = np.eye(64, dtype=np.float32)
        twin = axes[0] + 0.01 * random.normal(size=(31, 64)).astype(np.float32)
        twin /= np.linalg.norm(twin, axis=1, keepdims=True)
        vectors = {"twin": list(twin), "other": [axes[0]], **{str(i): [axes[i]] for i in range(1, 60)}}
        photographs = Photographs.of(vectors, {})
        last = curve(photographs, compare(photographs))[-1]
        assert (last.false_match_rate_low, last.false_match_rate_high) == (0.0, 1.0)


class TestOperatingPoint:
    def test_it_states_costs_and_how_sure_they_are(self) -> None:
        photographs = crowd(400, 3, noise=0.6, dimension=24)
        scores = compare(photographs)
        point = operating_point(photographs, scores, curve(photographs, scores), target=1e-3)
        assert point is not None
        assert point.threshold_low < point.threshold < point.threshold_high
        assert point.false_matches == pytest.approx(1e-3 * scores.impostor_pairs, rel=0.02)
        assert point.true_accept_rate_by_person_low < point.true_accept_rate_by_person
        assert point.true_accept_rate_by_person < point.true_accept_rate_by_person_high
        assert point.true_accept_rate == pytest.approx(point.true_accept_rate_by_person)

    def test_perfect_recognition_of_few_people_is_not_called_certain(self) -> None:
        photographs = crowd(100, 2, noise=0.01)
        scores = compare(photographs)
        point = operating_point(photographs, scores, curve(photographs, scores), target=1e-2)
        assert point is not None
        assert point.true_accept_rate_by_person == 1.0
        assert point.true_accept_rate_by_person_low == pytest.approx(0.97)

    def test_nothing_is_stated_beyond_the_data(self) -> None:
        photographs = crowd(50, 2)
        scores = compare(photographs)
        assert operating_point(photographs, scores, curve(photographs, scores), target=1e-3) is None

    def test_nothing_is_stated_where_nobody_has_two_photographs(self) -> None:
        photographs = crowd(200, 1)
        scores = compare(photographs)
        assert operating_point(photographs, scores, curve(photographs, scores), target=1e-2) is None


class TestStatedThreshold:
    def test_a_curve_of_others_is_tried_on_these(self) -> None:
        others = crowd(400, 2, seed=1)
        calibration = calibrate(others, compare(others), source="others", measured_on=DAY)
        photographs = crowd(400, 2, seed=2)
        found = stated_threshold(photographs, compare(photographs), calibration, target=1e-2)
        assert found is not None
        assert found.false_match_rate == pytest.approx(1e-2, rel=0.3)
        assert found.true_accept_rate_by_person == 1.0
        assert found.true_accept_rate_by_person_low == pytest.approx(1 - 3 / 400)

    def test_a_rate_that_rests_on_a_few_false_matches_is_not_stated(self) -> None:
        others = crowd(400, 1, seed=1)
        calibration = calibrate(others, compare(others), source="others", measured_on=DAY)
        photographs = crowd(20, 1, seed=2)
        found = stated_threshold(photographs, compare(photographs), calibration, target=1e-2)
        assert found is not None
        assert found.false_match_rate is None
        assert found.true_accept_rate is None

    def test_a_target_that_the_curve_does_not_carry_has_no_threshold(self) -> None:
        photographs = crowd(100, 1)
        scores = compare(photographs)
        calibration = calibrate(photographs, scores, source="few", measured_on=DAY)
        assert stated_threshold(photographs, scores, calibration, target=1e-4) is None


class TestSplit:
    def test_a_threshold_of_one_half_holds_on_the_other(self) -> None:
        (result,) = split_test(crowd(800, 1), targets=(1e-3,), splits=2)
        assert len(result.factors) == 4
        assert all(0.5 < factor < 2.0 for factor in result.factors)

    def test_both_halves_of_a_split_are_tried(self) -> None:
        # Between two samples of a half an error of one is mirrored in the other, so factors straddle 1.
        (result,) = split_test(crowd(300, 1), targets=(1e-2,), splits=1)
        assert min(result.factors) < 1.0 < max(result.factors)

    def test_targets_that_a_half_does_not_carry_are_left_out(self) -> None:
        assert split_test(crowd(100, 1), targets=(1e-3,)) == ()
        assert split_test(crowd(3, 1), targets=(1e-2,)) == ()


class TestSearch:
    def test_strangers_are_taken_for_somebody_about_as_often_as_aimed_at(self) -> None:
        photographs = crowd(1500, 2, dimension=24)
        calibration = calibrate(photographs, compare(photographs), source="random", measured_on=DAY)
        trial = search_trial(photographs, calibration, targets=(1e-1,), largest=300)
        assert trial is not None
        assert (trial.gallery, trial.strangers, trial.enrolled_searches) == (300, 300, 300)
        (point,) = trial.points
        assert point.service_fpir is not None
        assert point.service_fpir.mean == pytest.approx(0.1, rel=0.4)
        assert point.measured_threshold == pytest.approx(point.service_threshold, abs=0.05)

    def test_everybody_is_found_where_photographs_of_one_person_are_alike(self) -> None:
        photographs = crowd(200, 2, noise=0.01, dimension=64)
        trial = search_trial(photographs, None, targets=(1e-1,))
        assert trial is not None
        assert trial.rank_one is not None
        assert trial.rank_one.least == 1.0
        assert trial.points[0].measured_fnir == 0.0
        assert trial.points[0].service_threshold is None

    def test_the_measured_threshold_lets_through_no_more_than_its_share(self) -> None:
        photographs = crowd(200, 1)
        trial = search_trial(photographs, None, targets=(1e-1,), draws=10)
        assert trial is not None
        threshold = trial.points[0].measured_threshold
        assert threshold is not None
        fixed = cliff_at(threshold)
        again = search_trial(photographs, fixed, targets=(1e-1,), draws=10)
        assert again is not None
        assert again.points[0].service_fpir is not None
        # Some draws compare the same two photographs, and equal similarities pass or fail together.
        assert 0.09 <= again.points[0].service_fpir.mean <= 0.1

    def test_people_without_a_face_are_never_found(self) -> None:
        found = crowd(100, 1, noise=0.01)
        names = [str(number) for number in range(100)]
        photographs = Photographs.of(
            {name: [vector] for name, vector in zip(names, found.vectors, strict=True)}, dict.fromkeys(names, 1)
        )
        trial = search_trial(photographs, None, targets=(1e-1,))
        assert trial is not None
        assert trial.points[0].measured_fnir == 1.0
        assert trial.rank_one is not None
        assert trial.rank_one.most == 0.0

    def test_fewer_than_thirty_searches_that_find_somebody_state_no_threshold(self) -> None:
        trial = search_trial(crowd(60, 1), None, targets=(1e-2, 1e-1))
        assert trial is not None
        assert trial.strangers == 30
        assert trial.points[0].measured_threshold is None
        assert trial.points[1].measured_threshold is not None

    def test_nothing_is_said_of_the_enrolled_where_nobody_has_a_second_photograph(self) -> None:
        trial = search_trial(crowd(60, 1), None, targets=(1e-1,))
        assert trial is not None
        assert trial.rank_one is None
        assert trial.points[0].measured_fnir is None

    def test_fewer_than_thirty_strangers_are_an_anecdote(self) -> None:
        assert search_trial(crowd(59, 5), None, targets=(1e-1,)) is None

    def test_the_same_seed_gives_the_same_figures(self) -> None:
        photographs = crowd(60, 2)
        assert search_trial(photographs, None, targets=(1e-1,)) == search_trial(photographs, None, targets=(1e-1,))


def cliff_at(threshold: float) -> Calibration:
    """A curve on which every rate that is asked for stands at `threshold`."""
    points = tuple(
        CalibrationPoint(
            threshold=at,
            false_match_rate=rate,
            false_match_rate_low=rate,
            false_match_rate_high=rate,
            false_non_match_rate=0.0,
        )
        for at, rate in ((threshold - 1e-9, 0.9), (threshold, 1e-9))
    )
    evidence = Evidence(source="made up", people=2, images=2, genuine_pairs=0, impostor_pairs=10**12, measured_on=DAY)
    return Calibration(points=points, evidence=evidence)


def test_scores_of_nothing_are_nothing() -> None:
    scores = compare(Photographs.of({}, {"a": 2, "b": 1}))
    assert isinstance(scores, Scores)
    assert (scores.genuine_pairs, scores.impostor_pairs) == (1, 2)
    assert scores.true_match_rates_by_person()[0] == 0.0
