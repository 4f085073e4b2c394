"""From pixels to what a graph takes."""

import numpy as np
from numpy.typing import NDArray

from domain.model_pack import ColourOrder, InputLayout, Pixels


def graph_input(images: NDArray[np.uint8], pixels: Pixels) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Bring images, N x H x W x 3 in RGB, into the layout, colour order and scale that `pixels` names."""
    ordered = images if pixels.colour is ColourOrder.RGB else images[..., ::-1]
    if pixels.layout is InputLayout.UINT8_NHWC:
        return np.ascontiguousarray(ordered)
    scaled: NDArray[np.float32] = (ordered.astype(np.float32) - np.array(pixels.mean, np.float32)) / np.array(
        pixels.divisor, np.float32
    )
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
