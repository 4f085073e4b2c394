from collections.abc import Mapping
from datetime import date
from typing import Final

from dishka import provide

from adapters.face_embedder.memory import MemoryFaceEmbedder
from application.use_cases.jobs.handlers import JobHandler, JobHandlers
from domain.calibration import Calibration, CalibrationPoint, Evidence
from domain.job import JobWork
from tests.e2e.in_process import StandIns

CURVE: Final = Calibration(
    points=tuple(
        CalibrationPoint(
            threshold=threshold,
            false_match_rate=rate,
            false_match_rate_low=rate / 2,
            false_match_rate_high=rate * 2,
            false_non_match_rate=0.1,
        )
        for threshold, rate in ((0.0, 0.5), (0.5, 1e-2), (0.7, 1e-3), (0.9, 1e-7))
    ),
    evidence=Evidence(
        source="made up",
        people=100,
        images=1000,
        genuine_pairs=10_000,
        impostor_pairs=10**9,
        measured_on=date(2026, 1, 1),
    ),
)


class WithJobs(StandIns):
    """Memory backends, and handlers of the test's own."""

    def __init__(self, handlers: Mapping[JobWork, JobHandler] | None = None) -> None:
        super().__init__(MemoryFaceEmbedder())
        self.handlers: Final = JobHandlers(handlers or {})

    @provide(override=True)
    def its_calibration(self) -> Calibration:
        return CURVE

    @provide(override=True)
    def its_handlers(self) -> JobHandlers:
        return self.handlers
