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
)
from domain.calibration import Calibration
from domain.errors import PackError
from domain.evaluation import calibrate, compare


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewCalibration:
    """A curve, and what it replaces."""

    calibration: Calibration
    before: Calibration | None
    """What was in use; None where there was none that could be used."""
    text: str
    """The table for a manifest."""
    kept_at: str | None
    """Where it was kept; None where it was not asked to be."""
    embedded: EmbeddedPhotographs


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrate:
    """Measure the curve of the current face model on photographs of known people, and keep it where asked to.

    A kept curve decides from the next start on: every threshold that follows from an error rate moves
    with it, thresholds that were fixed by hand do not.
    """

    embedder: FaceEmbedder
    calibrations: Calibrations
    clock: Clock

    async def __call__(
        self, *, photographs: Sequence[Photograph], source: str, keep: bool, progress: EmbeddingProgress
    ) -> NewCalibration:
        embedded = await EmbedPhotographs(embedder=self.embedder)(photographs=photographs, progress=progress)
        space = self.embedder.space
        measured = await asyncio.to_thread(self._measure, embedded, source)
        before = self._before()
        return NewCalibration(
            calibration=measured,
            before=before,
            text=self.calibrations.written(measured, space=space),
            kept_at=self.calibrations.keep(measured, space=space) if keep else None,
            embedded=embedded,
        )

    def _measure(self, embedded: EmbeddedPhotographs, source: str) -> Calibration:
        scores = compare(embedded.photographs)
        return calibrate(embedded.photographs, scores, source=source, measured_on=self.clock.now().date())

    def _before(self) -> Calibration | None:
        try:
            return self.calibrations.of(self.embedder.space)
        except PackError:
            # Whatever is wrong with the old curve, a new one is the way out.
            return None
