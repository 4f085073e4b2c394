"""A liveness checker for tests: it says of each image what it was told."""

from collections.abc import Mapping
from typing import Final, final

from application.ports.errors import PortUnavailable
from application.ports.liveness_checker import LivenessChecker
from application.ports.ping import Ping
from domain.face import Face
from domain.liveness.result import Liveness, LivenessOutcome

_PORT: Final = "liveness_checker"
_LIVE: Final = 0.6
_SPOOF: Final = 0.4
"""From `_LIVE` on live, up to `_SPOOF` spoof, between the two uncertain: round numbers that stand for nothing."""


@final
class MemoryLivenessChecker(LivenessChecker, Ping):
    """Everybody is live but in images that were given another score. Looks at no pixel."""

    def __init__(self, scores: Mapping[bytes, float] | None = None) -> None:
        """Take scores, 0..1, by the bytes of the image; they may be changed later in `scores`."""
        self.scores = dict(scores or {})
        self.model_missing = False
        """Whether it answers as a checker does that has lost its model."""

    @property
    def name(self) -> str:
        return _PORT

    async def ping(self) -> None:
        if self.model_missing:
            raise PortUnavailable(_PORT, "its model is missing")

    async def check(self, image: bytes, *, face: Face) -> Liveness:  # noqa: ARG002 - all faces of an image are the same
        await self.ping()
        score = self.scores.get(image, 1.0)
        if score >= _LIVE:
            return Liveness(LivenessOutcome.LIVE, score, ())
        outcome = LivenessOutcome.SPOOF if score <= _SPOOF else LivenessOutcome.UNCERTAIN
        return Liveness(outcome, score, ("told_so",))

    async def close(self) -> None:
        self.scores.clear()
