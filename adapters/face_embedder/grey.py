"""What the grey levels of a chip say about the photograph."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class GreyMeasures(NamedTuple):
    """As `domain.quality.Measures` describes them."""

    sharpness: float
    brightness: float
    contrast: float


def grey_measures(chip: NDArray[np.uint8]) -> GreyMeasures:
    """Measure an RGB chip (Laplacian variance: Pech-Pacheco et al., ICPR 2000, with OpenCV's 3 x 3 kernel)."""
    grey = cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    _, roughness = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return GreyMeasures(
        sharpness=float(roughness[0, 0]) ** 2,
        brightness=float(mean[0, 0]) / 255.0,
        contrast=float(deviation[0, 0]) / 255.0,
    )
