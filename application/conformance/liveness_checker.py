"""What every liveness checker promises."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from application.conformance.contract import Contract
from application.conformance.event_loop import assert_not_blocked
from application.conformance.photographs import astronaut, halved
from application.conformance.png import encoded_png
from application.ports.errors import PortUnavailable
from application.ports.liveness_checker import LivenessChecker
from domain.face import Box, Face, Landmarks, Point
from domain.liveness.result import Liveness, LivenessOutcome
from domain.quality import Pose, Quality

Seen = tuple[bytes, Face]
"""An encoded image and a face that was found in it."""

TOLERANCE = 1e-5
"""By how much a score may differ from call to call."""


class LivenessCheckerContract(Contract):
    """Give `checker` and `without_model`; where `checker` outlives a single test, give `closable` too.

    The contract says nothing of how often a checker is right: that is measured on photographs of attacks, as APCER
    and BPCER.
    """

    at_once: ClassVar[int] = 8
    """Calls that the checker takes at once, none of which is refused as too many."""
    longest_block: ClassVar[float] = 0.05
    """Seconds for which it may keep the event loop from turning while it does `at_once` checks."""

    @pytest.fixture
    def checker(self) -> LivenessChecker:
        """Return the checker; the tests leave it open."""
        raise NotImplementedError("give your contract test the fixture `checker`")

    @pytest.fixture
    def without_model(self) -> Callable[[], LivenessChecker]:
        """Return a function that opens a checker whose model is not where it should be, or fails to."""
        raise NotImplementedError("give your contract test the fixture `without_model`")

    @pytest.fixture
    def closable(self, checker: LivenessChecker) -> LivenessChecker:
        """Return a checker that a test may close; by default `checker`, which is made anew for each test."""
        return checker

    @pytest.fixture
    def seen(self) -> Sequence[Seen]:
        """Return faces to check, at least two, largest first; by default those of one photograph in three states."""
        picture = astronaut()
        return (
            (encoded_png(picture), astronauts_face()),
            (encoded_png(halved(picture)), astronauts_face(scale=0.5)),
            (encoded_png(picture[:, 230:]), astronauts_face(shift=-230.0)),  # through the middle of the face
        )

    async def test_the_verdict_is_a_value(self, checker: LivenessChecker, seen: Sequence[Seen]) -> None:
        for image, face in seen:
            assert_verdict(await checker.check(image, face=face))

    async def test_a_face_at_the_edge_has_a_verdict(self, checker: LivenessChecker, seen: Sequence[Seen]) -> None:
        image, face = seen[0]
        boxes = (
            Box(0.0, 0.0, face.box.width, face.box.height),
            replace(face.box, left=0.0, top=0.0),
            replace(face.box, right=face.box.left + 1.0, bottom=face.box.top + 1.0),
        )
        for box in boxes:
            assert_verdict(await checker.check(image, face=replace(face, box=box)))

    async def test_the_same_face_gives_the_same_verdict(self, checker: LivenessChecker, seen: Sequence[Seen]) -> None:
        for image, face in seen:
            first = await checker.check(image, face=face)
            assert_same(first, await checker.check(image, face=face))

    async def test_checks_at_once_do_not_disturb_each_other(
        self, checker: LivenessChecker, seen: Sequence[Seen]
    ) -> None:
        assert len(seen) >= 2
        alone = [await checker.check(image, face=face) for image, face in seen]
        for _ in range(3):
            chosen = [index % len(seen) for index in range(self.at_once)]
            together = await asyncio.gather(*(checker.check(seen[index][0], face=seen[index][1]) for index in chosen))
            for index, verdict in zip(chosen, together, strict=True):
                assert_same(alone[index], verdict)

    async def test_a_cancelled_check_harms_no_later_one(self, checker: LivenessChecker, seen: Sequence[Seen]) -> None:
        image, face = seen[0]
        alone = await checker.check(image, face=face)
        checks = [asyncio.create_task(checker.check(image, face=face)) for _ in range(self.at_once)]
        await asyncio.sleep(0)
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        assert_same(alone, await checker.check(image, face=face))

    async def test_a_missing_model_is_no_verdict(
        self, without_model: Callable[[], LivenessChecker], seen: Sequence[Seen]
    ) -> None:
        image, face = seen[0]
        with pytest.raises(PortUnavailable):
            await without_model().check(image, face=face)

    async def test_the_event_loop_goes_on_turning(self, checker: LivenessChecker, seen: Sequence[Seen]) -> None:
        image, face = seen[0]
        await assert_not_blocked(
            lambda: asyncio.gather(*(checker.check(image, face=face) for _ in range(self.at_once))),
            longest=self.longest_block,
        )

    async def test_closing_lets_running_work_end(self, closable: LivenessChecker, seen: Sequence[Seen]) -> None:
        image, face = seen[0]
        alone = await closable.check(image, face=face)
        running = asyncio.create_task(closable.check(image, face=face))
        await asyncio.sleep(0)
        await closable.close()
        try:
            verdict = await running
        except PortUnavailable:
            return  # it had not begun
        assert_same(alone, verdict)

    async def test_close_twice(self, closable: LivenessChecker) -> None:
        await closable.close()
        await closable.close()


def astronauts_face(*, scale: float = 1.0, shift: float = 0.0) -> Face:
    """Return where the face is in scikit-image's astronaut, reduced by `scale` and then moved across, in pixels."""

    def moved(x: float, y: float) -> Point:
        return Point(x * scale + shift, y * scale)

    corner, far = moved(182.0, 58.0), moved(270.0, 178.0)
    eyes = (moved(203.0, 102.0), moved(247.0, 105.0))
    mouth = (moved(203.0, 142.0), moved(241.0, 144.0))
    return Face(
        box=Box(max(corner.x, 0.0), corner.y, far.x, far.y),
        landmarks=Landmarks(*eyes, moved(223.0, 125.0), *mouth),
        confidence=0.95,
        pose=Pose(yaw=-1.0, pitch=2.0, roll=4.0),
        quality=Quality(1.0, ()),
    )


def assert_verdict(verdict: Liveness) -> None:
    """One of three outcomes, with a score between an attack's and a live face's, and reasons in words."""
    assert isinstance(verdict.outcome, LivenessOutcome)
    assert 0.0 <= verdict.score <= 1.0
    assert all(verdict.reasons)


def assert_same(expected: Liveness, verdict: Liveness) -> None:
    """Two checks of the same face."""
    assert (verdict.outcome, verdict.reasons) == (expected.outcome, expected.reasons)
    assert verdict.score == pytest.approx(expected.score, abs=TOLERANCE)
