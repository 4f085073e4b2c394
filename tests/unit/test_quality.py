from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.quality import REFUSALS, Measures, Pose, Reason, assess

GOOD = Measures(eye_distance=60.0, visible=1.0, sharpness=80.0, brightness=0.47, contrast=0.18, confidence=0.92)
AHEAD = Pose(0.0, 0.0, 0.0)
WORSE: dict[str, tuple[float, float]] = {
    # the measure: from as good as it gets to useless
    "eye_distance": (60.0, 0.0),
    "visible": (1.0, 0.0),
    "sharpness": (80.0, 0.0),
    "contrast": (0.18, 0.0),
    "confidence": (0.92, 0.0),
}


def test_a_good_face_has_the_full_score_and_no_reason() -> None:
    assert assess(GOOD, AHEAD).score == 1.0
    assert assess(GOOD, AHEAD).reasons == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"eye_distance": 8.0}, Reason.FACE_TOO_SMALL),
        ({"visible": 0.5}, Reason.FACE_CUT_OFF),
        ({"sharpness": 3.8}, Reason.LOW_SHARPNESS),
        ({"brightness": 0.047}, Reason.TOO_DARK),
        ({"brightness": 0.97}, Reason.TOO_BRIGHT),
        ({"contrast": 0.013}, Reason.LOW_CONTRAST),
        ({"confidence": 0.6}, Reason.LOW_CONFIDENCE),
    ],
)
def test_each_measure_has_its_reason(change: dict[str, float], reason: Reason) -> None:
    quality = assess(replace(GOOD, **change), AHEAD)
    assert quality.reasons == (reason,)
    assert quality.score < 0.6


@pytest.mark.parametrize("pose", [Pose(55.0, 0.0, 0.0), Pose(-55.0, 0.0, 0.0), Pose(0.0, 35.0, 0.0), Pose(0, -35, 0)])
def test_a_face_turned_away_has_an_extreme_pose(pose: Pose) -> None:
    assert assess(GOOD, pose).reasons == (Reason.EXTREME_POSE,)


def test_a_leaning_head_is_none_the_worse() -> None:
    assert assess(GOOD, Pose(0.0, 0.0, 90.0)).score == 1.0


def test_the_median_and_the_worst_hundredth_of_ordinary_photographs_pass() -> None:
    median = Measures(
        eye_distance=42.6, visible=1.0, sharpness=38.1, brightness=0.473, contrast=0.181, confidence=0.925
    )
    worst = Measures(eye_distance=28.5, visible=1.0, sharpness=12.2, brightness=0.287, contrast=0.105, confidence=0.825)
    assert assess(median, Pose(-0.9, 0.5, -2.4)).score == 1.0
    assert assess(worst, Pose(34.8, 9.9, 7.6)).reasons == ()


def test_reasons_come_worst_first() -> None:
    poor = replace(GOOD, eye_distance=11.0, sharpness=2.6, visible=0.7)
    assert assess(poor, AHEAD).reasons == (Reason.LOW_SHARPNESS, Reason.FACE_TOO_SMALL, Reason.FACE_CUT_OFF)


@given(st.sampled_from(sorted(WORSE)), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_worse_measure_never_raises_the_score(name: str, one: float, other: float) -> None:
    good, useless = WORSE[name]
    better, worse = sorted((one, other))
    scores = [
        assess(replace(GOOD, **{name: good + share * (useless - good)}), AHEAD).score for share in (better, worse)
    ]
    assert scores[0] >= scores[1]


@given(
    st.builds(
        Measures,
        eye_distance=st.floats(0, 5000),
        visible=st.floats(0, 1),
        sharpness=st.floats(0, 1e5),
        brightness=st.floats(0, 1),
        contrast=st.floats(0, 0.5),
        confidence=st.floats(0, 1),
    ),
    st.builds(Pose, st.floats(-90, 90), st.floats(-90, 90), st.floats(-180, 180)),
)
def test_the_score_is_a_share_and_every_reason_lowers_it(measures: Measures, pose: Pose) -> None:
    quality = assess(measures, pose)
    assert 0.0 <= quality.score <= 1.0
    assert len(set(quality.reasons)) == len(quality.reasons)
    if quality.reasons:
        assert quality.score < 1.0


def test_every_reason_refuses_with_its_own_code() -> None:
    assert {reason.value: REFUSALS[reason].code for reason in Reason} == {
        reason.value: reason.value for reason in Reason
    }
