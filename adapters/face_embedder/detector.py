"""Finds faces: how large the detection model sees a picture, and what its output means in the picture."""

from collections.abc import Callable
from typing import final

import cv2
import numpy as np
from numpy.typing import NDArray

from adapters.face_embedder.found import Found

Look = Callable[[NDArray[np.uint8]], Found]
"""A detection model: faces in H x W x 3, RGB, in pixels of what it was given; overlapping ones are suppressed."""


@final
class Detector:
    """A detection model with what surrounds it."""

    def __init__(self, look: Look, *, multiple: int, longest_side: int) -> None:
        """Take the model.

        Args:
            look: the model.
            multiple: of which both sides of what it is given must be, in pixels.
            longest_side: pixels to which a picture is reduced.
        """
        self._look = look
        self._multiple = multiple
        self.longest_side = longest_side

    def find(self, picture: NDArray[np.uint8]) -> Found:
        """Find faces in `picture`, H x W x 3 in RGB; boxes in its pixels, not clipped.

        The picture is reduced to the longest side, never enlarged. Where nothing is found, it is looked at again at
        half that size.
        """
        height, width = picture.shape[:2]
        scale = min(1.0, self.longest_side / max(height, width))
        found = self._at(picture, scale)
        if not found.confidences.size:
            found = self._at(picture, scale / 2)
        return found

    def _at(self, picture: NDArray[np.uint8], scale: float) -> Found:
        height, width = picture.shape[:2]
        seen = picture
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            seen = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        found = self._look(self._framed(seen))
        across, down = width / seen.shape[1], height / seen.shape[0]
        return Found(found.boxes * (across, down, across, down), found.landmarks * (across, down), found.confidences)

    def _framed(self, seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill up with black to the right and below: no square, nothing stretched."""
        height, width = seen.shape[:2]
        framed = np.zeros(
            (-(-height // self._multiple) * self._multiple, -(-width // self._multiple) * self._multiple, 3), np.uint8
        )
        framed[:height, :width] = seen
        return framed
