"""The port to the calibration curves of embedding spaces."""

from abc import abstractmethod
from typing import Protocol

from domain.calibration import Calibration
from domain.embedding import EmbeddingSpace


class Calibrations(Protocol):
    """One curve a space: the operator's own where there is one, else the one that came with the pack."""

    @abstractmethod
    def of(self, space: EmbeddingSpace) -> Calibration:
        """Return the curve that the service decides by.

        Raises:
            PackUncalibrated: there is none, or it was measured in another space.
            PackCorrupt: there is one that cannot be read.
        """

    @abstractmethod
    def keep(self, calibration: Calibration, *, space: EmbeddingSpace) -> str:
        """Make it the operator's own, in use from the next start on, whole or not at all; return where it is.

        Raises `PackUnavailable` where it cannot be written.
        """

    @abstractmethod
    def written(self, calibration: Calibration, *, space: EmbeddingSpace) -> str:
        """Return it as the text that a manifest holds."""
