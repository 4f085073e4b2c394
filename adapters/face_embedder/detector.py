"""Finds faces: how large the detector sees a picture, and what its output means in the picture."""

from collections.abc import Callable, Sequence
from typing import Final, final

import cv2
import numpy as np
from numpy.typing import NDArray

from adapters.face_embedder.centerface import decode_centerface
from adapters.face_embedder.found import Found, suppressed
from adapters.inference.graph_input import graph_input
from adapters.inference.sessions import Graph
from application.ports.errors import PortRejected
from domain.model_pack import DetectorDecoder, DetectorPart

_DECODERS: Final[dict[DetectorDecoder, Callable[[Sequence[NDArray[np.float32]], float], Found]]] = {
    DetectorDecoder.CENTERFACE: decode_centerface,
}


@final
class Detector:
    """A detection model with what surrounds it."""

    def __init__(self, part: DetectorPart, graph: Graph, *, longest_side: int) -> None:
        """Take the longest side, in pixels, to which a picture is reduced. Raises `PortRejected`."""
        if part.decoder not in _DECODERS:
            raise PortRejected("face_embedder", f"no decoder for {part.decoder} is built in")
        self._part = part
        self._graph = graph
        self._decode = _DECODERS[part.decoder]
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
        found = suppressed(
            self._decode(self._graph(self._framed(seen)), self._part.confidence),
            self._part.nms_iou,
        )
        across, down = width / seen.shape[1], height / seen.shape[0]
        return Found(found.boxes * (across, down, across, down), found.landmarks * (across, down), found.confidences)

    def _framed(self, seen: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Fill up with black to the right and below: no square, nothing stretched."""
        height, width = seen.shape[:2]
        multiple = self._part.multiple
        framed = np.zeros((1, -(-height // multiple) * multiple, -(-width // multiple) * multiple, 3), np.uint8)
        framed[0, :height, :width] = seen
        return graph_input(framed, self._part.pixels)
