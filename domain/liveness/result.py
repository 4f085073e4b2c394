"""What a passive liveness check of one image says (ISO/IEC 30107-3)."""

from dataclasses import dataclass
from enum import StrEnum


class LivenessOutcome(StrEnum):
    """What was decided. A missing model never reads as one of these: it is an error of the port."""

    LIVE = "live"
    SPOOF = "spoof"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Liveness:
    """A field of answers, never an exception."""

    outcome: LivenessOutcome
    score: float
    """0 (surely an attack) to 1 (surely live)."""
    reasons: tuple[str, ...]
