"""What benchmarks share: made when the first one asks, and once."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import final

from platformdirs import user_cache_path

from adapters.face_embedder.onnx import OnnxFaceEmbedder
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
from application.ports.face_embedder import FaceEmbedder
from domain.embedding import EmbeddingSpace
from domain.face import Analysis, Embed
from entrypoints.settings import Settings, process_environment

CHECKOUT = Path(__file__).parents[2]
NO_PHOTOGRAPHS = "the photographs of LFW are not there (FACEPASS_TEST_SHARED)"


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph of LFW."""

    person: str
    path: Path
    content: bytes

    def read(self) -> bytes:
        return self.content


@final
class Remembering(FaceEmbedder):
    """Looks at each photograph once, whoever asks again."""

    def __init__(self, inner: FaceEmbedder) -> None:
        self._inner = inner
        self._seen: dict[bytes, Analysis] = {}

    @property
    def space(self) -> EmbeddingSpace:
        return self._inner.space

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        assert embed is Embed.ALL
        key = hashlib.sha256(image).digest()
        if key not in self._seen:
            self._seen[key] = await self._inner.analyse(image, embed=embed)
        return self._seen[key]

    async def close(self) -> None:
        await self._inner.close()


@dataclass
class Bench:
    """Lives as long as the run; `stack` closes what was made."""

    tell: Callable[[str], None]
    """Says how far it has come."""
    stack: ExitStack = field(default_factory=ExitStack)
    made: dict[str, object] = field(default_factory=dict)
    """What one benchmark made and others use, by name."""

    @cached_property
    def models(self) -> Path:
        """The folder with the built `open` pack: the one that the tests keep."""
        folder = user_cache_path("facepass-tests") / "models"
        self.packs_in(folder).pull("open", lambda stage, done, total: None)  # noqa: ARG005 - nobody watches
        return folder

    @staticmethod
    def packs_in(folder: Path) -> PackRegistry:
        return PackRegistry(folder, commercial_only=True, fetcher=Fetcher(process_environment()))

    @cached_property
    def packs(self) -> PackRegistry:
        return self.packs_in(self.models)

    @cached_property
    def embedder(self) -> OnnxFaceEmbedder:
        """The pipeline as the service has it without any setting, in this process."""
        chosen, image = Settings().face_embedder, Settings().image
        return OnnxFaceEmbedder(
            self.packs.get(chosen.pack),
            self.packs.files(chosen.pack),
            executor=InferenceExecutor(queue_limit=chosen.queue_limit),
            budget=DecodeBudget(image.budget_megapixels),
            longest_side=chosen.detection_size,
        )

    @cached_property
    def photos(self) -> Sequence[Photo]:
        """All of LFW that is there, by name; empty where it is not."""
        shared = process_environment().get("FACEPASS_TEST_SHARED") or CHECKOUT.parent / "shared"
        paths = sorted((Path(shared) / "faces" / "lfw").glob("*/*.jpg"))
        return [Photo(path.parent.name, path, path.read_bytes()) for path in paths]

    @cached_property
    def remembering(self) -> Remembering:
        return Remembering(self.embedder)

    def analyses(self, photos: Sequence[Photo]) -> list[Analysis]:
        """What the pipeline sees in each."""

        async def look() -> list[Analysis]:
            several = asyncio.Semaphore(8)

            async def one(photo: Photo) -> Analysis:
                async with several:
                    return await self.remembering.analyse(photo.content, embed=Embed.ALL)

            return await asyncio.gather(*map(one, photos))

        self.tell(f"looking at {len(photos):,} photographs")
        return asyncio.run(look())

    def spaced(self, count: int) -> list[Photo]:
        """So many photographs, spread evenly over all."""
        step = max(1, len(self.photos) // count)
        return list(self.photos[::step])[:count]

    def alone(self, count: int) -> list[Photo]:
        """So many that show exactly one face with which nothing is wrong: those that can be enrolled."""
        looked = self.spaced(round(count * 1.6))
        seen = zip(looked, self.analyses(looked), strict=True)
        good = [photo for photo, found in seen if len(found.faces) == 1 and not found.faces[0].quality.reasons]
        assert len(good) >= count, "too few photographs with one good face"
        return good[:count]
