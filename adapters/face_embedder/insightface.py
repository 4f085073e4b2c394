"""InsightFace's own library (github.com/deepinsight/insightface): any pack that its `FaceAnalysis` loads."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, final

import numpy as np
from insightface.app import FaceAnalysis
from insightface.model_zoo import SCRFD, ArcFaceONNX
from insightface.utils.face_align import arcface_dst
from numpy.typing import NDArray

from adapters.face_embedder.aligner import Aligner
from adapters.face_embedder.analyser import FaceAnalyser
from adapters.face_embedder.detector import Detector
from adapters.face_embedder.found import Found
from adapters.face_embedder.insightface_pack import InsightFacePack
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.inference.image_header import ImageLimits
from adapters.inference.process import prepare_process
from adapters.inference.providers import execution_providers, require_loaded
from adapters.inference.sessions import CPU, session_options, translated
from application.ports.errors import PortRejected
from application.ports.face_embedder import FaceEmbedder
from application.ports.ping import Ping
from domain.embedding import EmbeddingSpace
from domain.face import Analysis, Embed

PORT: Final = "face_embedder"
_MULTIPLE: Final = 32
"""SCRFD's coarsest stride."""

_CENTRE: Final = 0.5
"""The library counts pixels from the centre of the first: its landmarks and its template go into `cv2.warpAffine` as
they are. With this the chips are `norm_crop`'s own. On 700 photographs of 350 people of LFW, with SCRFD-2.5G and
MobileFaceNet, 326 of 350 genuine pairs pass at a false match rate of 1e-5, and 324 without it."""


@final
class InsightFaceEmbedder(FaceEmbedder, Ping):
    """The detector and the recogniser that `FaceAnalysis` finds in a pack. Each image is one job.

    The library loads the models and prepares their input. Around them stands what stands around every other pack here:
    decoding within limits, reduction without aliasing, quality. The chips are those of `face_align.norm_crop`, cut
    by other means: that one calls what scikit-image is about to remove, and skips pixels of large faces.
    """

    def __init__(
        self,
        pack: InsightFacePack,
        *,
        executor: InferenceExecutor,
        budget: DecodeBudget,
        providers: Sequence[str] = (CPU,),
        limits: ImageLimits | None = None,
        longest_side: int = 640,
    ) -> None:
        """Load the models. Nothing is ever downloaded here.

        Args:
            pack: whose files are there.
            executor: does the work; closed together with this.
            budget: megapixels in flight, shared by whoever decodes in this process.
            providers: of onnxruntime, in order, by short or full names; one that does not load is refused.
            limits: of one image; None: 10 MiB and 40 megapixels.
            longest_side: pixels to which a picture is reduced before faces are looked for.

        Raises:
            PackMissing: there are no model files.
            PortRejected: the pack or a provider cannot be used here.
            PortUnavailable: a model cannot be loaded.
        """
        pack.files()
        prepare_process()
        self._executor = executor
        detection, recognition = _models(pack, execution_providers(providers, port=PORT))
        aligner = Aligner(_template(recognition), recognition.input_size)
        vectors = partial(_vectors, recognition)
        self._space = EmbeddingSpace(
            model=f"{pack.name}@insightface",
            digest=_digest(detection, recognition),
            dimension=vectors(aligner.blank()).shape[1],
        )
        self._analyser = FaceAnalyser(
            Detector(partial(_look, detection), multiple=_MULTIPLE, longest_side=longest_side),
            aligner,
            vectors,
            space=self._space.id,
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
        return await self._executor.run(partial(self._analyser.analyse, image, embed=embed))

    async def ping(self) -> None:
        await self._analyser.prove()

    async def close(self) -> None:
        await self._executor.close()


def _models(pack: InsightFacePack, providers: tuple[str, ...]) -> tuple[SCRFD, ArcFaceONNX]:
    """Load the pack's detector and recogniser.

    `FaceAnalysis` hands options and providers through to every session that it makes. Given a folder that exists, it
    looks for no other and downloads nothing. One session takes all sizes: the library would otherwise build another
    one at each new size, in the middle of a request.
    """
    with translated(PORT):
        try:
            models = FaceAnalysis(
                str(pack.folder),
                allowed_modules=["detection", "recognition"],
                providers=list(providers),
                sess_options=session_options(),
                static_shape_sessions=False,
            ).models
        except AssertionError:  # how the library says that no file is a detector, or that one is not what it seems
            models = {}
    detection, recognition = models.get("detection"), models.get("recognition")
    if detection is None or recognition is None or not detection.use_kps:
        raise PortRejected(
            PORT, f"InsightFace finds no detector with landmarks or no recogniser in the pack {pack.name}"
        )
    for model in (detection, recognition):
        require_loaded(model.session, providers, port=PORT)
    return detection, recognition


def _template(recognition: ArcFaceONNX) -> list[tuple[float, float]]:
    """Return what `face_align.estimate_norm` aligns to, in a chip of the recogniser's size."""
    side = recognition.input_size[0]
    unit, aside = (112, 0.0) if side % 112 == 0 else (128, 8.0)
    return [((x + aside) * side / unit, y * side / unit) for x, y in arcface_dst.tolist()]


def _digest(detection: SCRFD, recognition: ArcFaceONNX) -> str:
    """SHA-256 over both files and what decides which pixels the recogniser sees."""
    told = {
        "files": [
            hashlib.sha256(Path(model.model_file).read_bytes()).hexdigest() for model in (detection, recognition)
        ],
        "pixels": [[float(model.input_mean), float(model.input_std)] for model in (detection, recognition)],
        "chip": list(recognition.input_size),
        "template": _template(recognition),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _look(detection: SCRFD, framed: NDArray[np.uint8]) -> Found:
    height, width = framed.shape[:2]
    with translated(PORT):
        found, landmarks = detection.detect(_bgr(framed), input_size=(width, height))
    return Found(
        found[:, :4].astype(np.float64) + _CENTRE,
        landmarks.astype(np.float64) + _CENTRE,
        found[:, 4].astype(np.float64).clip(0.0, 1.0),
    )


def _vectors(recognition: ArcFaceONNX, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    ordered = list(_bgr(chips))
    with translated(PORT):
        if recognition.input_shape[0] == 1:  # some graphs take one chip at a time
            return np.concatenate([recognition.get_feat(chip) for chip in ordered])
        return np.asarray(recognition.get_feat(ordered), np.float32)


def _bgr(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The library takes pixels in OpenCV's order."""
    return np.ascontiguousarray(images[..., ::-1])
