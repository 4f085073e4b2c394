import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.alignment import eye_distance, pose_of, similarity_transforms
from domain.face import Landmarks, Point

TEMPLATE = np.array([(46.3, 47.6), (103.5, 45.8), (73.4, 80.2), (50.4, 105.9), (99.2, 105.0)])
FRONTAL = ((30.0, 40.0), (70.0, 40.0), (50.0, 63.03), (35.0, 80.4), (65.0, 80.4))


def landmarks(points: object) -> Landmarks:
    return Landmarks(*(Point(float(x), float(y)) for x, y in np.asarray(points)))


def turned(points: object, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.asarray(points) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@given(
    degrees=st.floats(-180.0, 180.0), scale=st.floats(0.05, 20.0), x=st.floats(-5000, 5000), y=st.floats(-5000, 5000)
)
def test_a_moved_template_is_moved_back(degrees: float, scale: float, x: float, y: float) -> None:
    moved = turned(TEMPLATE, degrees) * scale + (x, y)
    (transform,) = similarity_transforms(moved[None], TEMPLATE)
    np.testing.assert_allclose(moved @ transform[:, :2].T + transform[:, 2], TEMPLATE, atol=1e-6)


def test_what_does_not_fit_is_fitted_with_the_least_squares() -> None:
    rng = np.random.default_rng(5)
    points = TEMPLATE * 2 + rng.normal(0, 5, TEMPLATE.shape)
    (found,) = similarity_transforms(points[None], TEMPLATE)
    rows = [row for x, y in points for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, across, down = np.linalg.lstsq(np.array(rows), TEMPLATE.ravel(), rcond=None)[0]
    np.testing.assert_allclose(found, [(a, -b, across), (b, a, down)], atol=1e-9)


def test_mirrored_points_are_never_reflected() -> None:
    (transform,) = similarity_transforms((TEMPLATE * (-1, 1))[None], TEMPLATE)
    assert np.linalg.det(transform[:, :2]) > 0


def test_points_that_coincide_give_finite_numbers() -> None:
    assert np.isfinite(similarity_transforms(np.ones((1, 5, 2)), TEMPLATE)).all()


def test_each_face_has_its_own_transform_whatever_stands_beside_it() -> None:
    several = np.stack([TEMPLATE * 2, TEMPLATE + 7, turned(TEMPLATE, 30)])
    alone = [similarity_transforms(points[None], TEMPLATE)[0] for points in several]
    np.testing.assert_allclose(similarity_transforms(several, TEMPLATE), alone, atol=1e-12)


def test_a_face_that_looks_straight_ahead_has_no_angles() -> None:
    pose = pose_of(landmarks(FRONTAL))
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((0.0, 0.0, 0.0), abs=1.0)


@given(st.floats(-80.0, 80.0))
def test_a_leaning_head_changes_roll_alone(degrees: float) -> None:
    pose = pose_of(landmarks(turned(FRONTAL, degrees)))
    assert pose.roll == pytest.approx(degrees, abs=1e-6)
    assert (pose.yaw, pose.pitch) == pytest.approx((0.0, 0.0), abs=1.0)


def test_a_nose_to_the_right_is_a_positive_yaw_and_its_mirror_image_the_opposite() -> None:
    points = np.array(FRONTAL)
    points[2, 0] += 10
    right = pose_of(landmarks(points))
    mirrored = (points * (-1, 1))[[1, 0, 2, 4, 3]]
    left = pose_of(landmarks(mirrored))
    assert right.yaw > 20
    assert left.yaw == pytest.approx(-right.yaw)
    assert left.pitch == pytest.approx(right.pitch)


def test_a_raised_nose_is_a_positive_pitch() -> None:
    points = np.array(FRONTAL)
    points[2, 1] -= 8
    assert pose_of(landmarks(points)).pitch > 10


def test_a_turned_solid_head_is_read_at_its_angle() -> None:
    # Eyes and mouth in a plane, the nose half an eye distance in front of it, seen from afar.
    solid = np.column_stack([np.array(FRONTAL) - (50, 60), (0, 0, 22, 0, 0)])
    for yaw in (-45, -20, 20, 45):
        angle = np.radians(yaw)
        seen = np.column_stack([solid[:, 0] * np.cos(angle) + solid[:, 2] * np.sin(angle), solid[:, 1]])
        assert pose_of(landmarks(seen)).yaw == pytest.approx(yaw, abs=1.0)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.array(FRONTAL) * (1, -1)])
def test_senseless_landmarks_read_as_an_extreme_pose(points: np.ndarray) -> None:
    pose = pose_of(landmarks(points))
    assert max(abs(pose.yaw), abs(pose.pitch)) == 90.0


def test_eye_distance_counts_pixels_along_the_line_between_the_eyes() -> None:
    assert eye_distance(landmarks(turned(FRONTAL, 33))) == pytest.approx(40.0)
