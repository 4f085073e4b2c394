"""Cuts faces out of a picture, upright and of one size, as the embedder wants them."""

import math
from collections.abc import Sequence
from typing import Final, final

import cv2
import numpy as np
from numpy.typing import NDArray

from domain.alignment import similarity_transforms

_CORE: Final = 15
"""Points across and down the face by which its visible share is counted."""
_COARSE: Final = 2.0
"""Pixels of the picture for each pixel of the chip from which on they are averaged before the warp: bilinear
interpolation looks at two by two and would skip the others."""


@final
class Aligner:
    """Brings the five landmarks of a face onto a template."""

    def __init__(self, template: Sequence[tuple[float, float]], size: tuple[int, int]) -> None:
        """Take where the landmarks lie in a chip, in pixels, and its width and height."""
        self._template = np.array(template, np.float64)
        self._width, self._height = size
        low, high = self._template.min(axis=0), self._template.max(axis=0)
        sides = [
            np.linspace(*ends, _CORE) for ends in zip(low - (high - low) / 2, high + (high - low) / 2, strict=True)
        ]
        self._core = np.stack(np.meshgrid(*sides), axis=2).reshape(-1, 2)
        self._eyes = float(np.hypot(*(self._template[1] - self._template[0])))

    def blank(self) -> NDArray[np.uint8]:
        """Return one black chip, 1 x height x width x 3."""
        return np.zeros((1, self._height, self._width, 3), np.uint8)

    def coarseness(self, landmarks: NDArray[np.float64]) -> float:
        """By how much the picture could be reduced until the smallest face is no larger than in its chip.

        Landmarks are N x 5 x 2; infinity where N is 0.
        """
        if not len(landmarks):
            return math.inf
        across = landmarks[:, 1] - landmarks[:, 0]
        return float(np.hypot(across[:, 0], across[:, 1]).min()) / self._eyes

    def inside(self, landmarks: NDArray[np.float64], *, width: int, height: int) -> NDArray[np.float64]:
        """Return the share of each face, 0..1, that lies inside a picture of this size.

        The face is the template's landmarks with half their extent around them. A detector's box does not tell: it
        shrinks to what is left of a face.
        """
        transforms = similarity_transforms(landmarks, self._template)
        turned = np.linalg.pinv(transforms[:, :, :2])
        points = (self._core - transforms[:, None, :, 2]) @ turned.transpose(0, 2, 1)
        shares: NDArray[np.float64] = ((points >= 0.0) & (points <= (width, height))).all(axis=2).mean(axis=1)
        return shares

    def chips(self, picture: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Cut faces out of `picture`, H x W x 3; landmarks, N x 5 x 2, in its pixels. N x height x width x 3.

        What lies outside the picture is black.
        """
        chips = np.empty((len(landmarks), self._height, self._width, 3), np.uint8)
        for chip, transform in zip(chips, similarity_transforms(landmarks, self._template), strict=True):
            _warp(picture, transform, chip)
        return chips


def _warp(picture: NDArray[np.uint8], transform: NDArray[np.float64], chip: NDArray[np.uint8]) -> None:
    coarseness = 1.0 / max(float(np.hypot(transform[0, 0], transform[1, 0])), 1e-9)
    if coarseness >= _COARSE:
        picture, transform = _averaged(picture, transform, int(coarseness), chip.shape[:2])
    # Pixel centres lie at half numbers in points of the picture, at whole numbers for OpenCV.
    centred = transform.copy()
    centred[:, 2] += transform[:, :2] @ (0.5, 0.5)
    cv2.warpAffine(picture, centred, (chip.shape[1], chip.shape[0]), dst=chip, flags=cv2.INTER_LINEAR)


def _averaged(
    picture: NDArray[np.uint8], transform: NDArray[np.float64], factor: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Average blocks of `factor` x `factor` pixels in the part of the picture that the chip shows."""
    inverse = np.linalg.inv(transform[:, :2])
    corners = np.array([(0, 0), (shape[1], 0), (0, shape[0]), (shape[1], shape[0])])
    seen = (corners - transform[:, 2]) @ inverse.T
    height, width = picture.shape[:2]
    left, top = np.clip(np.floor(seen.min(axis=0)).astype(int) - factor, 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(seen.max(axis=0)).astype(int) + factor, (left + 1, top + 1), (width, height))
    columns, rows = -(-(right - left) // factor), -(-(bottom - top) // factor)
    part = cv2.resize(picture[top:bottom, left:right], (columns, rows), interpolation=cv2.INTER_AREA)
    scale = np.array([(right - left) / columns, (bottom - top) / rows])
    moved = np.empty_like(transform)
    moved[:, :2] = transform[:, :2] * scale
    moved[:, 2] = transform[:, 2] + transform[:, :2] @ (left, top)
    return np.asarray(part, np.uint8), moved
