from collections.abc import Callable, Sequence

import pytest

from adapters.liveness_checker.memory import MemoryLivenessChecker
from application.conformance.liveness_checker import LivenessCheckerContract, Seen, astronauts_face
from application.ports.errors import PortUnavailable
from application.ports.liveness_checker import LivenessChecker
from domain.face import Face
from domain.liveness.result import Liveness, LivenessOutcome


class TestMemoryLivenessChecker(LivenessCheckerContract):
    @pytest.fixture
    def checker(self, seen: Sequence[Seen]) -> LivenessChecker:
        return MemoryLivenessChecker({image: index / len(seen) for index, (image, _) in enumerate(seen)})

    @pytest.fixture
    def without_model(self) -> Callable[[], LivenessChecker]:
        def opened() -> LivenessChecker:
            checker = MemoryLivenessChecker()
            checker.model_missing = True
            return checker

        return opened


@pytest.mark.parametrize(
    ("score", "outcome"),
    [
        (1.0, LivenessOutcome.LIVE),
        (0.6, LivenessOutcome.LIVE),
        (0.5, LivenessOutcome.UNCERTAIN),
        (0.4, LivenessOutcome.SPOOF),
        (0.0, LivenessOutcome.SPOOF),
    ],
)
async def test_an_image_has_the_score_that_was_given(score: float, outcome: LivenessOutcome) -> None:
    checker = MemoryLivenessChecker({b"image": score})
    verdict = await checker.check(b"image", face=astronauts_face())
    assert (verdict.outcome, verdict.score) == (outcome, score)
    assert (await checker.check(b"another", face=astronauts_face())).outcome is LivenessOutcome.LIVE


async def test_a_ping_says_that_the_model_is_missing() -> None:
    checker = MemoryLivenessChecker()
    await checker.ping()
    checker.model_missing = True
    with pytest.raises(PortUnavailable):
        await checker.ping()


class Assuming(LivenessChecker):
    """Calls everybody live whose model is not there."""

    async def check(self, image: bytes, *, face: Face) -> Liveness:
        return Liveness(LivenessOutcome.LIVE, float(len(image) + face.box.area), ())

    async def close(self) -> None:
        pass


async def test_the_contract_finds_what_is_wrong() -> None:
    seen = [(b"image", astronauts_face())]
    with pytest.raises(pytest.fail.Exception):
        await LivenessCheckerContract().test_a_missing_model_is_no_verdict(Assuming, seen)
    with pytest.raises(AssertionError):
        await LivenessCheckerContract().test_the_verdict_is_a_value(Assuming(), seen)
