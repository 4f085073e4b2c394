"""How well a face can be compared, in numbers and in reasons."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from domain.errors import (
    ExtremePose,
    FaceCutOff,
    FaceRefused,
    FaceTooSmall,
    LowConfidence,
    LowContrast,
    LowSharpness,
    TooBright,
    TooDark,
)


class Reason(StrEnum):
    """Why a face compares badly; the codes are those of the errors that refuse it."""

    FACE_TOO_SMALL = "face_too_small"
    FACE_CUT_OFF = "face_cut_off"
    LOW_SHARPNESS = "low_sharpness"
    LOW_CONTRAST = "low_contrast"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    EXTREME_POSE = "extreme_pose"
    LOW_CONFIDENCE = "low_confidence"


REFUSALS: dict[Reason, type[FaceRefused]] = {
    Reason.FACE_TOO_SMALL: FaceTooSmall,
    Reason.FACE_CUT_OFF: FaceCutOff,
    Reason.LOW_SHARPNESS: LowSharpness,
    Reason.LOW_CONTRAST: LowContrast,
    Reason.TOO_DARK: TooDark,
    Reason.TOO_BRIGHT: TooBright,
    Reason.EXTREME_POSE: ExtremePose,
    Reason.LOW_CONFIDENCE: LowConfidence,
}
"""The error that a refused reason becomes."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the head points, in degrees, from five landmarks: good to about ten degrees."""

    yaw: float
    """Positive: the nose points to the right of the image."""
    pitch: float
    """Positive: the nose points up."""
    roll: float
    """Positive: the head leans to the right of the image (clockwise)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What was measured on one face, before any judgement."""

    eye_distance: float
    """Pixels of the upright image between the eyes."""
    visible: float
    """Share of the face that lies inside the image, 0..1: of the unclipped box or of the part around the five
    landmarks, whichever is less."""
    sharpness: float
    """Variance of the Laplacian of the aligned grey chip, grey levels squared."""
    brightness: float
    """Mean grey level of the aligned chip, 0..1."""
    contrast: float
    """Standard deviation of the grey levels of the aligned chip, 0..1."""
    confidence: float
    """The detector's, 0..1."""


@dataclass(frozen=True, slots=True)
class Quality:
    """A score, and what lowers it."""

    score: float
    """0 (useless) to 1 (as good as it gets)."""
    reasons: tuple[Reason, ...]
    """Worst first; empty where nothing is wrong."""


# Where a measure refuses a face. Each stands where the damage is real with the `open` pack: where genuine pairs of
# which one photograph was damaged miss about twice as often at the threshold of a false match rate of 1e-3. Clean, 5.9
# to 7.0 % of them miss, by the subset: up to 4 photographs a person of LFW, 240 or 800 photographs, 512 or 1,730 pairs.
# How many ordinary photographs each refuses is said of 1,202 of LFW.

SMALLEST_EYE_DISTANCE: Final = 12.0
"""Pixels. Reduced to 13 (median), 10.2 % miss; to 11, 12.3 %; to 8.7, 24.2 %. LFW: 1 % below 28, none below 12."""
LEAST_VISIBLE: Final = 0.75
"""Share of the face. Cut off at the side down to 0.70 (median), 19.5 % miss, against 8.5 % of the same 236 pairs whole;
from below to 0.72, 14.4 %, from above to 0.87, 18.2 %, to 0.73, 53 %. LFW: 0.1 % below 1."""
LEAST_SHARPNESS: Final = 6.0
"""Grey levels squared. A Gaussian blur of 2 pixels gives 5.8 (median) and 11.2 % misses, of 2.5 gives 4.5 and 17.5 %,
of 3 gives 3.8 and 27.6 %. LFW: 1 % below 12, 0.1 % below 5.6. Enlarged tiny photographs count as blurred: those
of an eye distance of 11, enlarged fourfold, give 9.1 and 11.7 %."""
LEAST_BRIGHTNESS: Final = 0.07
"""Mean. Darkened to 0.095 (median, with noise of 2 grey levels), 8.2 % miss; to 0.047, 23.6 %; to 0.024, 80 %.
LFW: 0.1 % below 0.22."""
MOST_BRIGHTNESS: Final = 0.82
"""Mean. Over-exposed, with white clipped, to 0.71 (median), 10.0 % miss; to 0.83, 27.9 %; to 0.90, 58 %. Lightened
to 0.80 without clipping (gamma 4), 7.8 %: it is the clipping that hurts. LFW: 0.1 % above 0.717."""
LEAST_CONTRAST: Final = 0.03
"""Standard deviation. Flattened to 0.055 (median), 6.8 % miss; to 0.028, 16.0 %; to 0.013, 81 %. LFW: 0.1 % below
0.089."""
MOST_YAW: Final = 50.0
"""Degrees to either side. Of natural pairs whose further turned face has 50 or more, 29 % miss (7 pairs), of those
with 40 to 50 4.5 % (22 pairs). LFW: about 0.3 % beyond."""
MOST_PITCH: Final = 30.0
"""Degrees up or down. No photograph of LFW comes near (0.1 % beyond 13), and misses do not grow up to there: this
rests on the estimate alone, which tells little beyond."""
LEAST_CONFIDENCE: Final = 0.75
"""The detector's. Of natural pairs with a face below 0.8, 31 % miss (16 pairs). LFW: 0.1 % below 0.765."""

# Where a measure costs nothing any more (LFW's worst twentieth), and where it has cost everything.
_EYE_DISTANCE: Final = (6.0, 30.0)
_VISIBLE: Final = (0.4, 1.0)
_SHARPNESS: Final = (2.5, 17.0)
_DARKNESS: Final = (0.02, 0.15)
_LIGHTNESS: Final = (1.0, 0.75)
_CONTRAST: Final = (0.01, 0.08)
_YAW: Final = (70.0, 25.0)
_PITCH: Final = (45.0, 10.0)
_CONFIDENCE: Final = (0.5, 0.87)


def assess(measures: Measures, pose: Pose) -> Quality:
    """Judge a face by its worst measure.

    Each measure counts from 0, where nothing can be compared any more, to 1, where LFW's ordinary photographs begin,
    straight between the two; the score is the least of them, since no good light makes up for a face turned away.

    Rank correlation (Spearman) of a pair's lower score with its similarity, genuine pairs of LFW: 0.11 on 1,286 pairs
    as they are, where little is wrong and other things decide, and 0.58 with one photograph of each of 1,730 pairs
    blurred by 0.5 to 5 pixels. 0.7 % of 1,202 ordinary photographs have a reason, most of them the pose.
    """
    pitch = abs(pose.pitch)
    yaw = abs(pose.yaw)
    judged = (
        (
            _ramp(measures.eye_distance, _EYE_DISTANCE),
            Reason.FACE_TOO_SMALL,
            measures.eye_distance < SMALLEST_EYE_DISTANCE,
        ),
        (_ramp(measures.visible, _VISIBLE), Reason.FACE_CUT_OFF, measures.visible < LEAST_VISIBLE),
        (_ramp(measures.sharpness, _SHARPNESS), Reason.LOW_SHARPNESS, measures.sharpness < LEAST_SHARPNESS),
        (_ramp(measures.brightness, _DARKNESS), Reason.TOO_DARK, measures.brightness < LEAST_BRIGHTNESS),
        (_ramp(measures.brightness, _LIGHTNESS), Reason.TOO_BRIGHT, measures.brightness > MOST_BRIGHTNESS),
        (_ramp(measures.contrast, _CONTRAST), Reason.LOW_CONTRAST, measures.contrast < LEAST_CONTRAST),
        (min(_ramp(yaw, _YAW), _ramp(pitch, _PITCH)), Reason.EXTREME_POSE, yaw > MOST_YAW or pitch > MOST_PITCH),
        (_ramp(measures.confidence, _CONFIDENCE), Reason.LOW_CONFIDENCE, measures.confidence < LEAST_CONFIDENCE),
    )
    wrong = sorted(((share, reason) for share, reason, refused in judged if refused), key=lambda pair: pair[0])
    return Quality(min(share for share, _, _ in judged), tuple(reason for _, reason in wrong))


def _ramp(value: float, ends: tuple[float, float]) -> float:
    useless, good = ends
    return min(max((value - useless) / (good - useless), 0.0), 1.0)
