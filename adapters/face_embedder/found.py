"""What a detector's decoder hands on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Found:
    """Faces in pixels of the detector's input; nothing is clipped, nothing ordered."""

    boxes: NDArray[np.float64]
    """N x 4: left, top, right, bottom."""
    landmarks: NDArray[np.float64]
    """N x 5 x 2: x, y; left eye, right eye, nose, left mouth corner, right mouth corner."""
    confidences: NDArray[np.float64]
    """N, 0..1."""

    def scaled(self, factor: float) -> "Found":
        """Return the same faces in a picture that is `factor` times as large."""
        return Found(self.boxes * factor, self.landmarks * factor, self.confidences)

    def taken(self, index: NDArray[np.intp]) -> "Found":
        """Return the faces at `index`, in that order."""
        return Found(self.boxes[index], self.landmarks[index], self.confidences[index])


def suppressed(found: Found, iou: float) -> Found:
    """Of boxes that overlap by more than `iou`, keep the most confident (greedy non-maximum suppression)."""
    left, top, right, bottom = found.boxes.T
    areas = (right - left) * (bottom - top)
    order = np.argsort(-found.confidences, kind="stable")
    kept: list[int] = []
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        across = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        down = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        shared = np.maximum(across, 0.0) * np.maximum(down, 0.0)
        order = rest[shared <= iou * (areas[first] + areas[rest] - shared)]
    return found.taken(np.array(kept, np.intp))
