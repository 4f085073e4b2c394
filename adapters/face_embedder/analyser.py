"""From an encoded image to faces: what every embedder of real photographs does around its two models."""

import asyncio
import time
from collections.abc import Callable
from itertools import zip_longest
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from adapters.face_embedder.aligner import Aligner
from adapters.face_embedder.detector import Detector
from adapters.face_embedder.found import Found
from adapters.face_embedder.grey import grey_measures
from adapters.inference.budget import DecodeBudget
from adapters.inference.image_header import ImageLimits
from adapters.inference.picture import Picture
from domain.alignment import eye_distance, pose_of
from domain.embedding import Embedding, SpaceId
from domain.face import Analysis, Box, Embed, Face, Landmarks, Point
from domain.quality import Measures, assess

Vectors = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""An embedding model: N x height x width x 3 aligned chips in RGB in, N x D vectors of any length out."""

_BATCH: Final = 8
"""Faces embedded at once: larger batches are no faster on a processor and only take memory."""
_FRESH: Final = 5.0
"""Seconds for which a readiness answer stands."""
_FINE: Final = 2.0
"""A picture is first decoded this much finer than the detector sees it, so that most faces need no second look."""


@final
class FaceAnalyser:
    """Decodes, finds, aligns, embeds and measures. Any number of threads may call it."""

    def __init__(
        self,
        detector: Detector,
        aligner: Aligner,
        vectors: Vectors,
        *,
        space: SpaceId,
        budget: DecodeBudget,
        limits: ImageLimits | None,
    ) -> None:
        """Take the two models, the megapixels in flight, and the limits of one image (None: 10 MiB, 40 megapixels)."""
        self.detector = detector
        self.aligner = aligner
        self._vectors = vectors
        self._space = space
        self._budget = budget
        self._limits = limits or ImageLimits()
        self._proven = -_FRESH

    def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        """Do what `FaceEmbedder.analyse` promises, in the calling thread."""
        picture = Picture(image, self._limits)
        factor = picture.factor(longest=self.detector.longest_side * _FINE)
        with self._budget.reserved(picture.cost(factor)):
            pixels = picture.decoded(factor)
            found = _ordered(self.detector.find(pixels).scaled(factor), picture.width, picture.height)
            needed = min(factor, picture.factor_within(self.aligner.coarseness(found.landmarks)))
            if needed == factor:
                return self._analysis(picture, pixels, factor, found, embed)
            del pixels
        with self._budget.reserved(picture.cost(needed)):
            return self._analysis(picture, picture.decoded(needed), needed, found, embed)

    def embeddings(self, chips: NDArray[np.uint8]) -> list[Embedding]:
        """Embed aligned chips, N x height x width x 3."""
        return [
            Embedding.normalised(vector, self._space)
            for start in range(0, len(chips), _BATCH)
            for vector in self._vectors(chips[start : start + _BATCH])
        ]

    async def prove(self) -> None:
        """Run both models, past any executor's queue: an embedder that is busy is there."""
        if time.monotonic() - self._proven < _FRESH:
            return
        await asyncio.to_thread(self._prove)
        self._proven = time.monotonic()

    def _prove(self) -> None:
        self.detector.find(np.zeros((64, 64, 3), np.uint8))
        self._vectors(self.aligner.blank())

    def _analysis(
        self, picture: Picture, pixels: NDArray[np.uint8], factor: int, found: Found, embed: Embed
    ) -> Analysis:
        chips = self.aligner.chips(pixels, found.landmarks / factor)
        embeddings = self.embeddings(chips[: _count(embed, len(chips))])
        inside = self.aligner.inside(found.landmarks, width=picture.width, height=picture.height).tolist()
        faces = tuple(
            _face(found, index, chip=chip, embedding=embedding, picture=picture, inside=inside[index])
            for index, (chip, embedding) in enumerate(zip_longest(chips, embeddings))
        )
        return Analysis(width=picture.width, height=picture.height, faces=faces)


def _count(embed: Embed, faces: int) -> int:
    """How many faces, from the largest on, get an embedding."""
    match embed:
        case Embed.NONE:
            return 0
        case Embed.LARGEST:
            return min(faces, 1)
        case Embed.ONLY:
            return 1 if faces == 1 else 0
        case Embed.ALL:
            return faces


def _ordered(found: Found, width: int, height: int) -> Found:
    """Largest visible area first, then the more confident, then from left to right; what is wholly outside goes."""
    clipped = np.clip(found.boxes, 0.0, (width, height, width, height))
    areas = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
    order = np.lexsort((clipped[:, 0], -found.confidences, -areas))
    return found.taken(order[areas[order] > 0.0])


def _face(
    found: Found, index: int, *, chip: NDArray[np.uint8], embedding: Embedding | None, picture: Picture, inside: float
) -> Face:
    left, top, right, bottom = found.boxes[index].tolist()
    whole = Box(left, top, right, bottom)
    box = whole.clipped(width=picture.width, height=picture.height)
    landmarks = Landmarks(*(Point(x, y) for x, y in found.landmarks[index].tolist()))
    confidence = float(found.confidences[index])
    pose = pose_of(landmarks)
    grey = grey_measures(chip)
    measures = Measures(
        eye_distance=eye_distance(landmarks),
        visible=min(inside, box.area / whole.area),
        sharpness=grey.sharpness,
        brightness=grey.brightness,
        contrast=grey.contrast,
        confidence=confidence,
    )
    return Face(
        box=box,
        landmarks=landmarks,
        confidence=confidence,
        pose=pose,
        quality=assess(measures, pose),
        embedding=embedding,
    )
