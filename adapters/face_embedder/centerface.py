"""CenterFace's four maps (Xu et al. 2019, arXiv:1911.03599), read as its authors' demo does."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from adapters.face_embedder.found import Found

STRIDE: Final = 4
"""Pixels a cell."""


def decode_centerface(outputs: Sequence[NDArray[np.float32]], confidence: float) -> Found:
    """Turn heat map, log sizes (height, width), offsets (y, x) and landmarks (pairs y, x in box units) into faces."""
    heat, sizes, offsets, landmarks = (output[0] for output in outputs)
    rows, columns = np.nonzero(heat[0] > confidence)
    height, width = np.exp(sizes[:, rows, columns].astype(np.float64)) * STRIDE
    top = (rows + offsets[0, rows, columns] + 0.5) * STRIDE - height / 2
    left = (columns + offsets[1, rows, columns] + 0.5) * STRIDE - width / 2
    pairs = landmarks[:, rows, columns].T.reshape(-1, 5, 2)
    points = np.stack(
        [pairs[:, :, 1] * width[:, None] + left[:, None], pairs[:, :, 0] * height[:, None] + top[:, None]], axis=2
    )
    return Found(
        np.stack([left, top, left + width, top + height], axis=1), points, heat[0, rows, columns].astype(np.float64)
    )
