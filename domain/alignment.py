"""Where a face is put before it is compared, and which way it looks: plane geometry of five landmarks."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from domain.face import Landmarks
from domain.quality import Pose

NOSE_DEPTH: Final = 0.55
"""How far the nose tip stands out of the plane of eyes and mouth, in distances between the eyes.

Checked by what does not depend on it: on 1,202 photographs of LFW the height of faces against their eye distance grows
with the yaw so found as 1 / cos(yaw) says, within 3 % up to 40 degrees and 11 % at 45."""
NOSE_HEIGHT: Final = 0.57
"""Where the nose tip of a face looking straight ahead lies between eyes (0) and mouth (1): the median of the 622
photographs of the same with a yaw below 10 degrees. It varies by 0.03 from photograph to photograph, 3 degrees."""
FACE_HEIGHT: Final = 1.01
"""From eyes to mouth of a face looking straight ahead, in distances between the eyes: the median of the same."""


def similarity_transforms(points: NDArray[np.float64], template: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares rotation, scale and shift of each set of `points`, N x K x 2, onto `template`, K x 2.

    Returns N x 2 x 3: `template = matrix[:, :2] @ point + matrix[:, 2]`. With points read as complex numbers, the
    least-squares solution of Umeyama (IEEE PAMI 13(4), 1991) is one quotient in the plane, and never a reflection.
    Points that all coincide have no scale: their matrix turns nothing and shrinks everything to the template's centre.
    """
    source = points[..., 0] + 1j * points[..., 1]
    target = template[:, 0] + 1j * template[:, 1]
    source_centre = source.mean(axis=1, keepdims=True)
    target_centre = target.mean()
    centred = source - source_centre
    spread = (centred.real**2 + centred.imag**2).sum(axis=1)
    turn = (centred.conj() @ (target - target_centre)) / np.where(spread > 0.0, spread, 1.0)
    shift = target_centre - turn * source_centre[:, 0]
    return np.stack(
        [
            np.stack([turn.real, -turn.imag, shift.real], axis=1),
            np.stack([turn.imag, turn.real, shift.imag], axis=1),
        ],
        axis=1,
    )


def eye_distance(landmarks: Landmarks) -> float:
    """Pixels between the eyes as they are seen: foreshortened where the head is turned."""
    return math.hypot(
        landmarks.right_eye.x - landmarks.left_eye.x,
        landmarks.right_eye.y - landmarks.left_eye.y,
    )


def pose_of(landmarks: Landmarks) -> Pose:
    """Estimate where the head points.

    Roll is the slope of the line between the eyes. Yaw and pitch follow from how far the nose tip has left the plane
    of eyes and mouth: seen from afar (orthographic), a tip that stands out by `NOSE_DEPTH` moves across by that times
    sin(yaw) while the eye distance shrinks by cos(yaw), so the quotient is a tangent; pitch the same way against the
    height of the face.
    """
    left, right, nose, left_mouth, right_mouth = landmarks.points()
    across, down = right.x - left.x, right.y - left.y
    eyes = math.hypot(across, down)
    if eyes == 0.0:
        return Pose(90.0, 0.0, 0.0)
    cos, sin = across / eyes, down / eyes
    eye_x, eye_y = (left.x + right.x) / 2, (left.y + right.y) / 2
    mouth_x, mouth_y = (left_mouth.x + right_mouth.x) / 2 - eye_x, (left_mouth.y + right_mouth.y) / 2 - eye_y
    nose_x, nose_y = nose.x - eye_x, nose.y - eye_y
    height = mouth_y * cos - mouth_x * sin
    if height <= 0.0:
        return Pose(0.0, 90.0, math.degrees(math.atan2(down, across)))
    drop = (nose_y * cos - nose_x * sin) / height
    midline = (mouth_x * cos + mouth_y * sin) * drop
    aside = nose_x * cos + nose_y * sin - midline
    return Pose(
        yaw=math.degrees(math.atan2(aside, NOSE_DEPTH * eyes)),
        pitch=math.degrees(math.atan2((NOSE_HEIGHT - drop) * FACE_HEIGHT, NOSE_DEPTH)),
        roll=math.degrees(math.atan2(down, across)),
    )
