"""Model packs, the face model, and the curve that its decisions rest on."""

import asyncio
from collections.abc import AsyncIterator

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
from domain.calibration import Calibration
from entrypoints.settings import Settings, process_environment


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
    async def embedder(self, settings: Settings, packs: ModelPacks, progress: Progress) -> AsyncIterator[FaceEmbedder]:
        """Build the pack where it is not there yet, check its files, load its models."""
        chosen = settings.face_embedder
        await asyncio.to_thread(packs.pull, chosen.pack, progress)
        files = await asyncio.to_thread(packs.files, chosen.pack)
        embedder = await asyncio.to_thread(
            lambda: OnnxFaceEmbedder(
                packs.get(chosen.pack),
                files,
                executor=InferenceExecutor(
                    threads=chosen.threads or None, queue_limit=chosen.queue_limit, wait_limit=chosen.queue_wait
                ),
                budget=DecodeBudget(settings.image.budget_megapixels, wait_limit=chosen.queue_wait),
                providers=chosen.providers,
                limits=ImageLimits(
                    size=settings.image.max_bytes, pixels=round(settings.image.max_megapixels * 1_000_000)
                ),
                longest_side=chosen.detection_size,
            )
        )
        try:
            yield embedder
        finally:
            await embedder.close()

    @provide
    def calibrations(self, settings: Settings, packs: ModelPacks) -> Calibrations:
        """The operator's curves in the data folder; behind them those of the packs."""
        return PackCalibrations(settings.data_path / "calibrations", packs=packs)

    @provide
    def calibration(self, calibrations: Calibrations, embedder: FaceEmbedder) -> Calibration:
        """Read the curve of the space in use. Raises `PackUncalibrated`."""
        return calibrations.of(embedder.space)
