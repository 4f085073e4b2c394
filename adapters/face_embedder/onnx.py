"""Model packs on ONNX Runtime."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from adapters.face_embedder.aligner import Aligner
from adapters.face_embedder.analyser import FaceAnalyser
from adapters.face_embedder.centerface import decode_centerface
from adapters.face_embedder.detector import Detector
from adapters.face_embedder.found import Found, suppressed
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.inference.graph_input import graph_input
from adapters.inference.image_header import ImageLimits
from adapters.inference.process import prepare_process
from adapters.inference.sessions import CPU, Graph, open_graph
from application.ports.errors import PortRejected
from application.ports.face_embedder import FaceEmbedder
from application.ports.ping import Ping
from domain.embedding import EmbeddingSpace
from domain.face import Analysis, Embed
from domain.model_pack import DetectorDecoder, DetectorPart, EmbedderPart, ModelPack

PORT: Final = "face_embedder"
_DECODERS: Final[dict[DetectorDecoder, Callable[[Sequence[NDArray[np.float32]], float], Found]]] = {
    DetectorDecoder.CENTERFACE: decode_centerface,
}


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
            providers: of onnxruntime, in order, by short or full names; one that does not load is refused.
            limits: of one image; None: 10 MiB and 40 megapixels.
            longest_side: pixels to which a picture is reduced before faces are looked for.

        Raises:
            PortRejected: the pack or a provider cannot be used here.
            PortUnavailable: a model cannot be loaded.
        """
        detector, embedder, space = pack.detector, pack.embedder, pack.space
        if detector is None or embedder is None or space is None:
            raise PortRejected(PORT, f"{pack.id} has no detector or no embedder")
        if detector.decoder not in _DECODERS:
            raise PortRejected(PORT, f"no decoder for {detector.decoder} is built in")
        prepare_process()
        graph = partial(open_graph, port=PORT, providers=providers)
        self._space = space
        self._executor = executor
        self._analyser = FaceAnalyser(
            Detector(
                partial(_look, graph(files[detector.name]), detector),
                multiple=detector.multiple,
                longest_side=longest_side,
            ),
            Aligner(embedder.template, embedder.chip),
            partial(_vectors, graph(files[embedder.name]), embedder),
            space=space.id,
            budget=budget,
            limits=limits,
        )

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
        return self._analyser.analyse(image, embed=embed)

    async def ping(self) -> None:
        await self._analyser.prove()

    async def close(self) -> None:
        await self._executor.close()


def _look(graph: Graph, part: DetectorPart, framed: NDArray[np.uint8]) -> Found:
    found = _DECODERS[part.decoder](graph(graph_input(framed[None], part.pixels)), part.confidence)
    return suppressed(found, part.nms_iou)


def _vectors(graph: Graph, part: EmbedderPart, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    count = len(chips)
    if part.mirror:
        chips = np.concatenate([chips, chips[:, :, ::-1]])
    vectors = graph(graph_input(chips, part.pixels))[0]
    return vectors[:count] + vectors[count:] if part.mirror else vectors
