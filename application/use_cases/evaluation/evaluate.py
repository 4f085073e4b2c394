import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.calibrations import Calibrations
from application.ports.clock import Clock
from application.ports.face_embedder import FaceEmbedder
from application.use_cases.evaluation.embed_photographs import (
    EmbeddedPhotographs,
    EmbeddingProgress,
    EmbedPhotographs,
    Photograph,
    Unreadable,
)
from domain.calibration import Calibration, CalibrationPoint, Evidence
from domain.errors import PackUncalibrated
from domain.evaluation import (
    EqualErrorRate,
    OperatingPoint,
    Photographs,
    Scores,
    SearchTrial,
    SplitResult,
    StatedThreshold,
    compare,
    curve,
    equal_error_rate,
    evidence,
    operating_point,
    search_trial,
    split_test,
    stated_threshold,
)

FMR_TARGETS = (1e-2, 1e-3, 1e-4)
FPIR_TARGETS = (1e-2, 1e-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything that was measured. What the photographs do not carry is None or left out, never guessed."""

    model: str
    """`<pack>@<version>`."""
    space: str
    """Digest of the embedding space."""
    evidence: Evidence
    without_face: tuple[str, ...]
    several_faces: int
    unreadable: tuple[Unreadable, ...]
    operating_points: tuple[OperatingPoint, ...]
    """Thresholds measured on these photographs; targets they do not carry are left out."""
    equal_error_rate: EqualErrorRate | None
    calibrated_on: Evidence | None
    """What the thresholds in use were measured on; None where there are none."""
    stated_thresholds: tuple[StatedThreshold, ...]
    """The thresholds in use, tried on these photographs."""
    search: SearchTrial | None
    split: tuple[SplitResult, ...]
    curve: tuple[CalibrationPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredEvaluation:
    """The report, and the counts that pictures are drawn from."""

    report: Evaluation
    scores: Scores


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Measure how well the current face model tells these people apart, and whether its thresholds hold for them.

    Every pair of photographs is compared; then people are enrolled and searched for as the service would.
    """

    embedder: FaceEmbedder
    calibrations: Calibrations
    clock: Clock

    async def __call__(
        self, *, photographs: Sequence[Photograph], source: str, progress: EmbeddingProgress
    ) -> MeasuredEvaluation:
        embedded = await EmbedPhotographs(embedder=self.embedder)(photographs=photographs, progress=progress)
        return await asyncio.to_thread(self._measure, embedded, source)

    def _measure(self, embedded: EmbeddedPhotographs, source: str) -> MeasuredEvaluation:
        photographs = embedded.photographs
        scores = compare(photographs)
        points = curve(photographs, scores)
        calibration = self._calibration()
        measured = [operating_point(photographs, scores, points, target=target) for target in FMR_TARGETS]
        report = Evaluation(
            model=self.embedder.space.model,
            space=self.embedder.space.digest,
            evidence=evidence(photographs, scores, source=source, measured_on=self.clock.now().date()),
            without_face=embedded.without_face,
            several_faces=embedded.several_faces,
            unreadable=embedded.unreadable,
            operating_points=tuple(point for point in measured if point is not None),
            equal_error_rate=equal_error_rate(scores),
            calibrated_on=None if calibration is None else calibration.evidence,
            stated_thresholds=_stated(photographs, scores, calibration),
            search=search_trial(photographs, calibration, targets=FPIR_TARGETS),
            split=split_test(photographs, targets=FMR_TARGETS),
            curve=points,
        )
        return MeasuredEvaluation(report=report, scores=scores)

    def _calibration(self) -> Calibration | None:
        try:
            return self.calibrations.of(self.embedder.space)
        except PackUncalibrated:
            return None


def _stated(photographs: Photographs, scores: Scores, calibration: Calibration | None) -> tuple[StatedThreshold, ...]:
    if calibration is None:
        return ()
    found = [stated_threshold(photographs, scores, calibration, target=target) for target in FMR_TARGETS]
    return tuple(each for each in found if each is not None)
