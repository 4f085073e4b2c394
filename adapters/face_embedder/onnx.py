"""Model packs on ONNX Runtime."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from adapters.face_embedder.aligner import Aligner
from adapters.face_embedder.detector import Detector
from adapters.face_embedder.found import Found
from adapters.face_embedder.grey import grey_measures
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.inference.graph_input import graph_input
from adapters.inference.image_header import ImageLimits
from adapters.inference.picture import Picture
from adapters.inference.process import prepare_process
from adapters.inference.sessions import CPU, open_graph
from application.ports.errors import PortRejected
from application.ports.face_embedder import FaceEmbedder
from application.ports.ping import Ping
from domain.alignment import eye_distance, pose_of
from domain.embedding import Embedding, EmbeddingSpace
from domain.face import Analysis, Box, Embed, Face, Landmarks, Point
from domain.model_pack import ModelPack
from domain.quality import Measures, assess

PORT: Final = "face_embedder"
_BATCH: Final = 8
"""Faces embedded at once: larger batches are no faster on a processor and only take memory."""
_FRESH: Final = 5.0
"""Seconds for which a readiness answer stands."""
_FINE: Final = 2.0
"""A picture is first decoded this much finer than the detector sees it, so that most faces need no second look."""


@final
class OnnxFaceEmbedder(FaceEmbedder, Ping):
    """The detector and the embedder of one pack. Each image is one job: decode, find, align, embed, measure."""

    def __init__(
        self,
        pack: ModelPack,
        files: Mapping[str, Path],
        *,
        executor: InferenceExecutor,
        budget: DecodeBudget,
        providers: Sequence[str] = (CPU,),
        limits: ImageLimits | None = None,
        longest_side: int = 640,
    ) -> None:
        """Load the models.

        Args:
            pack: with a detector and an embedder.
            files: each part's finished file, by the part's name.
            executor: does the work; closed together with this.
            budget: megapixels in flight, shared by whoever decodes in this process.
            providers: of onnxruntime, in order; one that is not there is refused.
            limits: of one image; None: 10 MiB and 40 megapixels.
            longest_side: pixels to which a picture is reduced before faces are looked for.

        Raises:
            PortRejected: the pack or a provider cannot be used here.
            PortUnavailable: a model cannot be loaded.
        """
        detector, embedder, space = pack.detector, pack.embedder, pack.space
        if detector is None or embedder is None or space is None:
            raise PortRejected(PORT, f"{pack.id} has no detector or no embedder")
        prepare_process()
        self._space = space
        self._executor = executor
        self._budget = budget
        self._limits = limits or ImageLimits()
        graph = partial(open_graph, port=PORT, providers=providers)
        self._detector = Detector(detector, graph(files[detector.name]), longest_side=longest_side)
        self._graph = graph(files[embedder.name])
        self._part = embedder
        self._aligner = Aligner(embedder.template, embedder.chip)
        self._proven = -_FRESH

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def name(self) -> str:
        return PORT

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        return await self._executor.run(partial(self.analyse_now, image, embed=embed))

    def analyse_now(self, image: bytes, *, embed: Embed) -> Analysis:
        """Do what `analyse` does in the calling thread; any number of threads may call it."""
        picture = Picture(image, self._limits)
        factor = picture.factor(longest=self._detector.longest_side * _FINE)
        with self._budget.reserved(picture.cost(factor)):
            pixels = picture.decoded(factor)
            found = _ordered(self._detector.find(pixels).scaled(factor), picture.width, picture.height)
            needed = min(factor, picture.factor_within(self._aligner.coarseness(found.landmarks)))
            if needed == factor:
                return self._analysis(picture, pixels, factor, found, embed)
            del pixels
        with self._budget.reserved(picture.cost(needed)):
            return self._analysis(picture, picture.decoded(needed), needed, found, embed)

    async def ping(self) -> None:
        """Run both models, past the executor's queue: an embedder that is busy is there."""
        if time.monotonic() - self._proven < _FRESH:
            return
        await asyncio.to_thread(self._prove)
        self._proven = time.monotonic()

    async def close(self) -> None:
        await self._executor.close()

    def _analysis(
        self, picture: Picture, pixels: NDArray[np.uint8], factor: int, found: Found, embed: Embed
    ) -> Analysis:
        chips = self._aligner.chips(pixels, found.landmarks / factor)
        embeddings = self._embeddings(chips[: _count(embed, len(chips))])
        inside = self._aligner.inside(found.landmarks, width=picture.width, height=picture.height).tolist()
        faces = tuple(
            _face(found, index, chip=chip, embedding=embedding, picture=picture, inside=inside[index])
            for index, (chip, embedding) in enumerate(zip_longest(chips, embeddings))
        )
        return Analysis(width=picture.width, height=picture.height, faces=faces)

    def _embeddings(self, chips: NDArray[np.uint8]) -> list[Embedding]:
        return [
            Embedding.normalised(vector, self._space.id)
            for start in range(0, len(chips), _BATCH)
            for vector in self._vectors(chips[start : start + _BATCH])
        ]

    def _vectors(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = len(chips)
        if self._part.mirror:
            chips = np.concatenate([chips, chips[:, :, ::-1]])
        vectors = self._graph(graph_input(chips, self._part.pixels))[0]
        return vectors[:count] + vectors[count:] if self._part.mirror else vectors

    def _prove(self) -> None:
        self._detector.find(np.zeros((64, 64, 3), np.uint8))
        self._vectors(np.zeros((1, *self._part.chip[::-1], 3), np.uint8))


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
