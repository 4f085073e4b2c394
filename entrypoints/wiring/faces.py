"""Model packs, the face model, and the curve that its decisions rest on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias, final

import structlog
from dishka import Provider, Scope, provide

from adapters.face_embedder.onnx import OnnxFaceEmbedder
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.inference.image_header import ImageLimits
from adapters.packs.calibration import PackCalibrations
from adapters.packs.fetch import Fetcher
from adapters.packs.indexes import IndexSettings
from adapters.packs.registry import PackRegistry
from application.ports.calibrations import Calibrations
from application.ports.face_embedder import FaceEmbedder
from application.ports.model_packs import ModelPacks, Progress
from application.ports.ping import Ping
from domain.calibration import Calibration
from domain.errors import PackNotCommercial
from domain.model_pack import DetectorDecoder, ModelPack
from entrypoints.settings import PREFIX, FaceEmbedderSettings, Settings, process_environment
from entrypoints.wiring.adapters import Port, extra_of, require_one_owner, third_party
from entrypoints.wiring.start_error import StartError

log = structlog.get_logger("facepass.faces")

NEXT = f"{PREFIX}NEXT_FACE_EMBEDDER__BACKEND"

NextFaceEmbedder: TypeAlias = FaceEmbedder | None
"""The second face model, beside the `FaceEmbedder`; None where there is none."""


class FaceProvider(Provider):
    """Everything that knows what a face looks like."""

    scope = Scope.APP

    @provide
    def packs(self, settings: Settings) -> ModelPacks:
        """List built-in packs and the operator's own."""
        chosen = settings.models.index_url
        fetcher = Fetcher(process_environment(), indexes=IndexSettings(default_index=chosen) if chosen else None)
        return PackRegistry(settings.models_path, commercial_only=settings.models.commercial_only, fetcher=fetcher)

    @provide
    def budget(self, settings: Settings) -> DecodeBudget:
        """Bound what is decoded at one time, whichever model it is for."""
        return DecodeBudget(settings.image.budget_megapixels, wait_limit=settings.face_embedder.queue_wait)

    @provide
    async def embedder(
        self, settings: Settings, packs: ModelPacks, budget: DecodeBudget, progress: Progress
    ) -> AsyncIterator[FaceEmbedder]:
        """Load the face model."""
        async with opened_embedder(settings.face_embedder, settings, packs, budget, progress) as embedder:
            yield embedder

    @provide
    async def following(
        self, settings: Settings, packs: ModelPacks, budget: DecodeBudget, progress: Progress
    ) -> AsyncIterator[NextFaceEmbedder]:
        """Load a second one, where galleries are to move to it."""
        chosen = settings.next_face_embedder
        if not chosen.backend:
            yield None
            return
        async with opened_embedder(chosen, settings, packs, budget, progress, NEXT) as embedder:
            yield embedder

    @provide
    def calibrations(self, settings: Settings, packs: ModelPacks) -> Calibrations:
        """The operator's curves in the data folder; behind them those of the packs."""
        return PackCalibrations(settings.data_path / "calibrations", packs=packs)

    @provide
    def calibration(self, calibrations: Calibrations, embedder: FaceEmbedder) -> Calibration:
        """Read the curve of the space in use. Raises `PackUncalibrated`."""
        return calibrations.of(embedder.space)


@final
class SecondEmbedder(Ping):
    """Asks the second model under a name of its own."""

    def __init__(self, embedder: FaceEmbedder) -> None:
        """Take it."""
        self._embedder: object = embedder

    @property
    def name(self) -> str:
        """Another name than that of the first."""
        return "next_face_embedder"

    async def ping(self) -> None:
        """Ask it, where it can be asked."""
        if isinstance(self._embedder, Ping):
            await self._embedder.ping()


@asynccontextmanager
async def opened_embedder(
    chosen: FaceEmbedderSettings,
    settings: Settings,
    packs: ModelPacks,
    budget: DecodeBudget,
    progress: Progress,
    place: str = Port.FACE_EMBEDDER.setting,
) -> AsyncIterator[FaceEmbedder]:
    """Load one face model. Raises `StartError` for a backend that is not there, naming its setting."""
    if chosen.backend == "onnx":
        require_one_owner(Port.FACE_EMBEDDER, chosen.backend, setting=place)
        async with _opened_onnx(chosen, settings, packs, budget, progress) as embedder:
            yield embedder
    elif chosen.backend == "insightface":
        async with _opened_insightface(chosen, settings, budget, place) as embedder:
            yield embedder
    else:
        async with third_party(Port.FACE_EMBEDDER, chosen.backend, setting=place)(options=chosen.options) as embedder:
            yield embedder


@asynccontextmanager
async def _opened_onnx(
    chosen: FaceEmbedderSettings, settings: Settings, packs: ModelPacks, budget: DecodeBudget, progress: Progress
) -> AsyncIterator[FaceEmbedder]:
    """Build the pack where it is not there yet, check its files, load its models."""
    _require_served(packs.get(chosen.pack))
    await asyncio.to_thread(packs.pull, chosen.pack, progress)
    files = await asyncio.to_thread(packs.files, chosen.pack)
    embedder = await asyncio.to_thread(
        lambda: OnnxFaceEmbedder(
            packs.get(chosen.pack),
            files,
            executor=_executor(chosen),
            budget=budget,
            providers=chosen.providers,
            limits=_limits(settings),
            longest_side=chosen.detection_size,
        )
    )
    try:
        yield embedder
    finally:
        await embedder.close()


@asynccontextmanager
async def _opened_insightface(
    chosen: FaceEmbedderSettings, settings: Settings, budget: DecodeBudget, place: str
) -> AsyncIterator[FaceEmbedder]:
    """Say the pack's licence, refuse it where it does not allow what is asked for, load its models."""
    with extra_of(Port.FACE_EMBEDDER, chosen.backend, setting=place):
        from adapters.face_embedder.insightface import InsightFaceEmbedder  # noqa: PLC0415 - an extra
        from adapters.face_embedder.insightface_pack import (  # noqa: PLC0415 - the same
            DEFAULT_ROOT,
            download_pack,
            insightface_pack,
        )
    pack = await asyncio.to_thread(insightface_pack, chosen.pack, chosen.root or DEFAULT_ROOT)
    if settings.models.commercial_only and not pack.commercial:
        raise PackNotCommercial(f"{pack.name}: {pack.licence}; FACEPASS_MODELS__COMMERCIAL_ONLY is set")
    log.info("insightface_pack", pack=pack.name, licence=pack.licence)
    if chosen.download:
        await asyncio.to_thread(download_pack, pack)
    embedder = await asyncio.to_thread(
        lambda: InsightFaceEmbedder(
            pack,
            executor=_executor(chosen),
            budget=budget,
            providers=chosen.providers,
            limits=_limits(settings),
            longest_side=chosen.detection_size,
        )
    )
    try:
        yield embedder
    finally:
        await embedder.close()


def _require_served(pack: ModelPack) -> None:
    """Raise `StartError` before anything is fetched of a pack that cannot be served, whatever its licence."""
    detector = pack.detector
    if detector is not None and detector.decoder is not DetectorDecoder.CENTERFACE:
        raise StartError(
            f"{PREFIX}FACE_EMBEDDER__PACK: {pack.name} cannot be served by the backend onnx, which has no decoder for "
            f"its detector ({detector.decoder.value}). InsightFace's packs are served by "
            f"{PREFIX}FACE_EMBEDDER__BACKEND=insightface"
        )


def _executor(chosen: FaceEmbedderSettings) -> InferenceExecutor:
    return InferenceExecutor(
        threads=chosen.threads or None, queue_limit=chosen.queue_limit, wait_limit=chosen.queue_wait
    )


def _limits(settings: Settings) -> ImageLimits:
    return ImageLimits(size=settings.image.max_bytes, pixels=round(settings.image.max_megapixels * 1_000_000))
