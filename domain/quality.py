"""How well a face can be compared, in numbers and in reasons."""

from dataclasses import dataclass
from enum import StrEnum

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
    """Share of the unclipped box that lies inside the image, 0..1."""
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


def assess(measures: Measures, pose: Pose) -> Quality:
    """Judge a face: the detector's confidence and nothing else, until thresholds are measured."""
    turned = (Reason.EXTREME_POSE,) if abs(pose.yaw) > 60.0 else ()  # noqa: PLR2004 - provisional
    return Quality(measures.confidence, turned)
