import asyncio
import io
import os
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import skimage.data
from insightface.data import get_image
from PIL import Image

from adapters.face_embedder.onnx import OnnxFaceEmbedder
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.inference.image_header import ImageLimits
from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
from application.ports.errors import PortBusy, PortRejected
from domain.errors import (
    ImageFormatUnsupported,
    ImageRefused,
    ImageTooLarge,
    ImageTruncated,
    NotAnImage,
    TooManyPixels,
)
from domain.face import Analysis, Box, Embed
from domain.quality import Reason

pytestmark = pytest.mark.models

TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_270,
)
"""How an upright picture is stored under the EXIF orientations 1 to 8."""

Build = Callable[..., OnnxFaceEmbedder]


@pytest.fixture(scope="module")
def build(open_pack_dir: Path) -> Build:
    packs = PackRegistry(open_pack_dir, commercial_only=True, fetcher=Fetcher({}))
    files = packs.files("open")

    def embedder(**changes: object) -> OnnxFaceEmbedder:
        given: dict[str, object] = {"executor": InferenceExecutor(threads=2), "budget": DecodeBudget()}
        return OnnxFaceEmbedder(packs.get("open"), files, **(given | changes))  # type: ignore[arg-type]  # by name

    return embedder


@pytest.fixture(scope="module")
async def embedder(build: Build) -> AsyncIterator[OnnxFaceEmbedder]:
    built = build()
    yield built
    await built.close()


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut())


@pytest.fixture(scope="module")
def group() -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(get_image("t1")[:, :, ::-1]))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def corners(box: Box) -> tuple[float, float, float, float]:
    return (box.left, box.top, box.right, box.bottom)


def similarity(one: Analysis, other: Analysis, index: int = 0) -> float:
    first, second = one.faces[index].embedding, other.faces[index].embedding
    assert first is not None
    assert second is not None
    return float(first.vector @ second.vector)


async def test_six_people_are_found_largest_first_each_with_an_embedding(
    embedder: OnnxFaceEmbedder, group: Image.Image
) -> None:
    seen = await embedder.analyse(encoded(group), embed=Embed.ALL)
    assert (seen.width, seen.height) == group.size
    assert len(seen.faces) == 6
    areas = [face.box.area for face in seen.faces]
    assert areas == sorted(areas, reverse=True)
    for face in seen.faces:
        assert 60 < face.box.width < face.box.height < 200
        assert face.embedding is not None
        assert face.embedding.space == embedder.space.id
        assert all(
            face.box.left < point.x < face.box.right and face.box.top < point.y < face.box.bottom
            for point in face.landmarks.points()
        )
    matrix = np.stack([face.embedding.vector for face in seen.faces if face.embedding])
    assert (matrix @ matrix.T)[~np.eye(6, dtype=bool)].max() < 0.95  # two of these strangers reach 0.931


@pytest.mark.parametrize(("embed", "expected"), [(Embed.NONE, 0), (Embed.LARGEST, 1), (Embed.ONLY, 0), (Embed.ALL, 6)])
async def test_those_faces_are_embedded_that_were_asked_for(
    embedder: OnnxFaceEmbedder, group: Image.Image, embed: Embed, expected: int
) -> None:
    seen = await embedder.analyse(encoded(group), embed=embed)
    assert [face.embedding is not None for face in seen.faces] == [True] * expected + [False] * (6 - expected)


async def test_the_only_face_is_embedded(embedder: OnnxFaceEmbedder, astronaut: Image.Image) -> None:
    (face,) = (await embedder.analyse(encoded(astronaut), embed=Embed.ONLY)).faces
    assert face.embedding is not None
    assert face.quality.reasons == ()
    assert face.quality.score > 0.5


async def test_no_face_is_an_empty_tuple(embedder: OnnxFaceEmbedder) -> None:
    seen = await embedder.analyse(encoded(Image.new("RGB", (300, 200), (90, 120, 60))), embed=Embed.ALL)
    assert (seen.width, seen.height, seen.faces) == (300, 200, ())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_every_orientation_shows_the_same_upright_face(
    embedder: OnnxFaceEmbedder, astronaut: Image.Image, orientation: int, kind: str
) -> None:
    upright = astronaut.crop((60, 0, 400, 300))
    turn = TURNS[orientation - 1]
    stored = upright.transpose(turn) if turn is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {} if kind == "PNG" else {"quality": 97}
    seen = await embedder.analyse(encoded(stored, kind, exif=exif, **options), embed=Embed.ONLY)
    expected = await embedder.analyse(encoded(upright, "PNG"), embed=Embed.ONLY)
    assert (seen.width, seen.height) == (340, 300)
    assert corners(seen.faces[0].box) == pytest.approx(corners(expected.faces[0].box), abs=2.0)
    assert similarity(seen, expected) > 0.99


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("I;16", "PNG"),
        ("RGBA", "WEBP"),
    ],
)
async def test_every_kind_of_pixels_shows_the_face(
    embedder: OnnxFaceEmbedder, astronaut: Image.Image, mode: str, kind: str
) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(astronaut.convert("L")).astype(np.uint16) * 257)
    else:
        image = astronaut.convert(mode)
    plain = await embedder.analyse(encoded(astronaut, "PNG"), embed=Embed.ONLY)
    assert similarity(await embedder.analyse(encoded(image, kind), embed=Embed.ONLY), plain) > 0.95


async def test_a_reduced_photograph_keeps_boxes_and_embeddings(embedder: OnnxFaceEmbedder, group: Image.Image) -> None:
    large = group.resize((group.width * 4, group.height * 4), Image.Resampling.BICUBIC)
    seen = await embedder.analyse(encoded(large, quality=90), embed=Embed.ALL)
    expected = await embedder.analyse(encoded(group, "PNG"), embed=Embed.ALL)
    assert (seen.width, seen.height) == large.size
    assert len(seen.faces) == 6
    for face in seen.faces:
        nearest = min(expected.faces, key=lambda other: abs(other.box.left * 4 - face.box.left))
        assert corners(face.box) == pytest.approx([4 * side for side in corners(nearest.box)], abs=24.0)
        assert face.embedding is not None
        assert nearest.embedding is not None
        assert float(face.embedding.vector @ nearest.embedding.vector) > 0.97


async def test_a_face_at_the_edge_has_a_clipped_box(embedder: OnnxFaceEmbedder, astronaut: Image.Image) -> None:
    box = (await embedder.analyse(encoded(astronaut), embed=Embed.NONE)).faces[0].box
    middle = (box.left + box.right) / 2
    seen = await embedder.analyse(encoded(astronaut.crop((int(middle) - 10, 0, 512, 512))), embed=Embed.NONE)
    for face in seen.faces:
        assert face.box.left >= 0.0
        assert face.box.right <= seen.width
    assert not seen.faces or Reason.FACE_CUT_OFF in seen.faces[0].quality.reasons


async def test_one_face_alone_and_among_others_is_the_same_vector(
    embedder: OnnxFaceEmbedder, group: Image.Image
) -> None:
    image = encoded(group, "PNG")
    alone = await embedder.analyse(image, embed=Embed.LARGEST)
    together = await asyncio.gather(*(embedder.analyse(image, embed=Embed.ALL) for _ in range(6)))
    assert alone.faces[0].embedding is not None
    for seen in together:
        assert seen.faces[0].embedding is not None
        np.testing.assert_allclose(seen.faces[0].embedding.vector, alone.faces[0].embedding.vector, atol=1e-5)


def damaged(image: bytes, at: float) -> bytes:
    position = int(len(image) * at)
    return image[:position] + bytes([image[position] ^ 0xFF]) + image[position + 1 :]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
async def test_a_cut_image_is_refused_wherever_it_is_cut(
    embedder: OnnxFaceEmbedder,
    astronaut: Image.Image,
    kind: str,
    share: float,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole = encoded(astronaut, kind)
    with pytest.raises(ImageTruncated):
        await embedder.analyse(whole[: int(len(whole) * share)], embed=Embed.NONE)
    assert capfd.readouterr() == ("", "")


async def test_half_a_jpeg_filled_up_with_zeros_is_refused(embedder: OnnxFaceEmbedder, astronaut: Image.Image) -> None:
    whole = encoded(astronaut)
    with pytest.raises(ImageTruncated):
        await embedder.analyse(whole[: len(whole) // 2].ljust(len(whole), b"\x00"), embed=Embed.NONE)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
async def test_a_png_with_one_changed_byte_is_refused(
    embedder: OnnxFaceEmbedder, astronaut: Image.Image, at: float
) -> None:
    with pytest.raises(ImageTruncated):
        await embedder.analyse(damaged(encoded(astronaut, "PNG"), at), embed=Embed.NONE)


async def test_a_png_whose_pixels_do_not_unpack_is_refused_in_silence(
    embedder: OnnxFaceEmbedder, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImageTruncated):
        await embedder.analyse(png(64, 64, chunk(b"IDAT", b"not deflated")), embed=Embed.NONE)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (b"", NotAnImage),
        (b"hello", NotAnImage),
        (b"\x00" * 4096, NotAnImage),
        (b"\xff\xd8\xff", ImageTruncated),
        (b"\x89PNG\r\n\x1a\n", ImageTruncated),
        (b"RIFF\x10\x00\x00\x00WEBP", ImageTruncated),
        (b"\x00\x00\x00\x18ftypheic" + bytes(64), ImageFormatUnsupported),
        (png(0, 10), ImageTruncated),
    ],
)
async def test_what_is_no_whole_image_is_refused_by_name(
    embedder: OnnxFaceEmbedder, image: bytes, error: type[ImageRefused]
) -> None:
    with pytest.raises(error):
        await embedder.analyse(image, embed=Embed.NONE)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO"])
async def test_other_formats_are_refused(embedder: OnnxFaceEmbedder, kind: str) -> None:
    with pytest.raises(ImageFormatUnsupported):
        await embedder.analyse(encoded(Image.new("RGB", (64, 64)), kind), embed=Embed.NONE)


async def test_a_picture_bomb_is_refused_by_its_header(embedder: OnnxFaceEmbedder) -> None:
    bomb = png(20_000, 20_000, chunk(b"IDAT", zlib.compress(bytes(1 << 22))))
    with pytest.raises(TooManyPixels):
        await embedder.analyse(bomb, embed=Embed.NONE)


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(64 << 20))),
        chunk(b"iCCP", b"profile\x00\x00" + zlib.compress(bytes(64 << 20))),
    ],
)
async def test_compressed_texts_and_profiles_are_passed_over(embedder: OnnxFaceEmbedder, bomb: bytes) -> None:
    rows = zlib.compress((b"\x00" + bytes(3 * 64)) * 64)
    seen = await embedder.analyse(png(64, 64, bomb, chunk(b"IDAT", rows)), embed=Embed.ALL)
    assert (seen.width, seen.height) == (64, 64)


async def test_limits_are_those_that_were_given(build: Build, astronaut: Image.Image) -> None:
    small = build(limits=ImageLimits(size=1000, pixels=512 * 512))
    with pytest.raises(ImageTooLarge):
        await small.analyse(encoded(astronaut), embed=Embed.NONE)
    few = build(limits=ImageLimits(pixels=512 * 512 - 1))
    with pytest.raises(TooManyPixels):
        await few.analyse(encoded(astronaut), embed=Embed.NONE)
    await small.close()
    await few.close()


async def test_a_full_budget_is_busy(build: Build, astronaut: Image.Image) -> None:
    budget = DecodeBudget(1.0, wait_limit=0.01)
    busy = build(budget=budget)
    with budget.reserved(1.0), pytest.raises(PortBusy):
        await busy.analyse(encoded(astronaut), embed=Embed.NONE)
    assert (await busy.analyse(encoded(astronaut), embed=Embed.NONE)).faces
    await busy.close()


async def test_a_ping_runs_the_models_while_every_thread_is_busy(build: Build) -> None:
    executor = InferenceExecutor(threads=1, queue_limit=0)
    embedder = build(executor=executor)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    blocking = asyncio.create_task(
        executor.run(lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30))
    )
    await asyncio.sleep(0)
    with pytest.raises(PortBusy):
        await executor.run(os.getpid)
    await embedder.ping()
    assert embedder.name == "face_embedder"
    release.set()
    await blocking
    await embedder.close()


@pytest.mark.parametrize("asked", [("cuda",), ("CUDAExecutionProvider", "CPUExecutionProvider")])
def test_a_provider_that_is_not_there_is_refused(build: Build, asked: tuple[str, ...]) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has CUDA")
    with pytest.raises(PortRejected, match=r"FACEPASS_FACE_EMBEDDER__PROVIDERS.*available here: .*cpu"):
        build(providers=asked)
