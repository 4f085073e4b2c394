"""From pixels to what a graph takes."""

import numpy as np
from numpy.typing import NDArray

from domain.model_pack import ColourOrder, InputLayout, Pixels


def graph_input(images: NDArray[np.uint8], pixels: Pixels) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Bring images, N x H x W x 3 in RGB, into the layout, colour order and scale that `pixels` names."""
    ordered = images if pixels.colour is ColourOrder.RGB else images[..., ::-1]
    if pixels.layout is InputLayout.UINT8_NHWC:
        return np.ascontiguousarray(ordered)
    mean, divisor = (np.array(values, np.float32) for values in (pixels.mean, pixels.divisor))
    scaled = np.divide(ordered.astype(np.float32) - mean, divisor, dtype=np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
