import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from adapters.face_embedder.insightface import InsightFaceEmbedder
from adapters.face_embedder.insightface_pack import insightface_pack
from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.face_embedder.onnx import OnnxFaceEmbedder
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
from application.conformance.face_embedder import FaceEmbedderContract
from application.conformance.photographs import Photographs
from application.ports.face_embedder import FaceEmbedder
from domain.embedding import EmbeddingSpace
from domain.face import Analysis, Embed


@pytest.fixture(scope="module")
def made_up() -> Photographs:
    picture = MemoryFaceEmbedder.picture
    return Photographs(
        person=picture("ada"),
        again=picture("ada", variation=0.3),
        other=picture("ben"),
        group=MemoryFaceEmbedder.group(["ada", "ben", "eve", "joe"]),
        nobody=MemoryFaceEmbedder.group([]),
        turned={orientation: picture("ada", orientation=orientation) for orientation in range(2, 9)},
        tagged={},
        too_many_pixels=picture("ada", pixels=10**9),
        foreign=b"GIF89a",
    )


class TestMemoryFaceEmbedder(FaceEmbedderContract):
    takes_files = False

    @pytest.fixture
    def embedder(self) -> FaceEmbedder:
        return MemoryFaceEmbedder()

    @pytest.fixture
    def photographs(self, made_up: Photographs) -> Photographs:
        return made_up


@pytest.mark.models
class TestOnnxFaceEmbedder(FaceEmbedderContract):
    @pytest.fixture
    async def embedder(self, open_pack_dir: Path) -> AsyncIterator[FaceEmbedder]:
        packs = PackRegistry(open_pack_dir, commercial_only=True, fetcher=Fetcher({}))
        opened = OnnxFaceEmbedder(
            packs.get("open"), packs.files("open"), executor=InferenceExecutor(threads=2), budget=DecodeBudget()
        )
        yield opened
        await opened.close()


class TestInsightFaceEmbedder(FaceEmbedderContract):
    @pytest.fixture
    async def embedder(self, shared: Path, tmp_path: Path) -> AsyncIterator[FaceEmbedder]:
        pack = insightface_pack("tiny", tmp_path)
        pack.folder.mkdir(parents=True)
        for name in ("scrfd_2.5g_bnkps.onnx", "mobilefacenet_128d.onnx"):
            if not (shared / "models" / name).is_file():
                pytest.skip(f"{name}, half of an InsightFace pack, is not in {shared / 'models'}")
            (pack.folder / name).symlink_to(shared / "models" / name)
        opened = InsightFaceEmbedder(pack, executor=InferenceExecutor(threads=2), budget=DecodeBudget())
        yield opened
        await opened.close()


class Faulty(FaceEmbedder):
    """The memory embedder with a fault, which the contract has to find."""

    def __init__(self) -> None:
        self._sound: Final = MemoryFaceEmbedder()

    @property
    def space(self) -> EmbeddingSpace:
        return self._sound.space

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        return await self._sound.analyse(image, embed=embed)

    async def close(self) -> None:
        await self._sound.close()


class Blocking(Faulty):
    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        time.sleep(0.02)  # noqa: ASYNC251 - this is the fault
        return await super().analyse(image, embed=embed)


class Mixing(Faulty):
    """Hands out what another call asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._image = b""

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        self._image = image
        await asyncio.sleep(0)
        return await super().analyse(self._image, embed=embed)


class Unsorted(Faulty):
    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        seen = await super().analyse(image, embed=embed)
        return replace(seen, faces=seen.faces[::-1])


class Sideways(Faulty):
    """Knows nothing of EXIF: what is stored on its side shows nobody."""

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        seen = await super().analyse(image, embed=embed)
        return seen if b'"orientation":1,' in image else replace(seen, faces=())


CONTRACT = FaceEmbedderContract()


@pytest.mark.parametrize(
    ("embedder", "promise"),
    [
        (Blocking, CONTRACT.test_the_event_loop_goes_on_turning),
        (Mixing, CONTRACT.test_calls_at_once_do_not_disturb_each_other),
        (Unsorted, CONTRACT.test_faces_come_largest_first),
        (Sideways, CONTRACT.test_every_orientation_shows_the_same_upright_face),
    ],
)
async def test_the_contract_finds_what_is_wrong(embedder: type[Faulty], promise: object, made_up: Photographs) -> None:
    assert callable(promise)
    await promise(MemoryFaceEmbedder(), made_up)
    with pytest.raises((AssertionError, ValueError)):
        await promise(embedder(), made_up)
