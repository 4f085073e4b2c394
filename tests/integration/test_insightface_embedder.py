import asyncio
import io
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import skimage.data
from insightface.app import FaceAnalysis
from insightface.data import get_image
from insightface.utils.face_align import estimate_norm
from PIL import Image

from adapters.face_embedder.insightface import InsightFaceEmbedder
from adapters.face_embedder.insightface_pack import InsightFacePack, download_pack, insightface_pack
from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from adapters.inference.image_header import ImageLimits
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from domain.errors import PackMissing, PackUnavailable, TooManyPixels, UnknownPack
from domain.face import Embed

FILES = {"detector": "scrfd_2.5g_bnkps.onnx", "recogniser": "mobilefacenet_128d.onnx"}

Build = Callable[..., InsightFaceEmbedder]


@pytest.fixture(scope="module")
def models(shared: Path) -> Path:
    folder = shared / "models"
    for name in FILES.values():
        if not (folder / name).is_file():
            pytest.skip(f"{name}, half of an InsightFace pack, is not in {folder}")
    return folder


@pytest.fixture(scope="module")
def pack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> InsightFacePack:
    return made(tmp_path_factory.mktemp("insightface"), "tiny", *(models / name for name in FILES.values()))


@pytest.fixture(scope="module")
def build(pack: InsightFacePack) -> Build:
    def embedder(of: InsightFacePack = pack, **changes: object) -> InsightFaceEmbedder:
        given: dict[str, object] = {"executor": InferenceExecutor(threads=2), "budget": DecodeBudget()}
        return InsightFaceEmbedder(of, **(given | changes))  # type: ignore[arg-type]  # by name

    return embedder


@pytest.fixture(scope="module")
async def embedder(build: Build) -> AsyncIterator[InsightFaceEmbedder]:
    built = build()
    yield built
    await built.close()


@pytest.fixture(scope="module")
def group() -> bytes:
    return encoded(get_image("t1"))


@pytest.fixture(scope="module")
def astronaut() -> bytes:
    return encoded(skimage.data.astronaut()[:, :, ::-1])


def made(root: Path, name: str, *files: Path) -> InsightFacePack:
    """Lay files down as a pack of that name."""
    pack = insightface_pack(name, root)
    pack.folder.mkdir(parents=True)
    for file in files:
        (pack.folder / file.name).symlink_to(file)
    return pack


def encoded(bgr: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1])).save(stream, kind)
    return stream.getvalue()


def photographs_of_two_people(folder: Path) -> list[bytes]:
    """Three of each."""
    people = sorted(path for path in folder.iterdir() if path.is_dir())[:2]
    return [path.read_bytes() for person in people for path in sorted(person.glob("*.jpg"))[:3]]


async def test_its_vectors_are_those_of_the_library_itself(
    embedder: InsightFaceEmbedder, pack: InsightFacePack
) -> None:
    # The library's own `get` cannot be called where warnings are errors; what follows is its two lines.
    library = FaceAnalysis(str(pack.folder), providers=["CPUExecutionProvider"])
    image = get_image("t1")[:640, :640]
    boxes, landmarks = library.models["detection"].detect(image, input_size=(640, 640))
    recogniser = library.models["recognition"]
    seen = await embedder.analyse(encoded(image), embed=Embed.ALL)
    assert len(seen.faces) == len(boxes) > 1
    for face in seen.faces:
        assert face.embedding is not None
        at = int(np.abs(boxes[:, 0] + 0.5 - face.box.left).argmin())
        with pytest.warns(FutureWarning, match="estimate"):
            matrix = estimate_norm(landmarks[at], 112)
        theirs = recogniser.get_feat(cv2.warpAffine(image, matrix, (112, 112), borderValue=0.0))[0]
        assert float(theirs @ face.embedding.vector / np.linalg.norm(theirs)) > 0.9999


async def test_six_people_are_found_largest_first(embedder: InsightFaceEmbedder, group: bytes) -> None:
    seen = await embedder.analyse(group, embed=Embed.ALL)
    assert (seen.width, seen.height) == get_image("t1").shape[1::-1]
    areas = [face.box.area for face in seen.faces]
    assert len(areas) == 6
    assert areas == sorted(areas, reverse=True)
    for face in seen.faces:
        assert face.embedding is not None
        assert face.embedding.space == embedder.space.id
        assert face.quality.score > 0.0
        assert all(
            face.box.left < point.x < face.box.right and face.box.top < point.y < face.box.bottom
            for point in face.landmarks.points()
        )
    matrix = np.stack([face.embedding.vector for face in seen.faces if face.embedding])
    assert (matrix @ matrix.T)[~np.eye(6, dtype=bool)].max() < 0.5


async def test_a_large_photograph_shows_the_same_people(embedder: InsightFaceEmbedder, group: bytes) -> None:
    with Image.open(io.BytesIO(group)) as image:
        large = io.BytesIO()
        image.resize((image.width * 3, image.height * 3), Image.Resampling.BICUBIC).save(large, "JPEG", quality=92)
    seen, expected = [await embedder.analyse(each, embed=Embed.ALL) for each in (large.getvalue(), group)]
    assert len(seen.faces) == 6
    for face in seen.faces:
        nearest = min(expected.faces, key=lambda other: abs(other.box.left * 3 - face.box.left))
        assert face.embedding is not None
        assert nearest.embedding is not None
        assert float(face.embedding.vector @ nearest.embedding.vector) > 0.95


async def test_the_same_person_is_nearer_than_a_stranger(embedder: InsightFaceEmbedder, lfw_mini: Path) -> None:
    vectors = []
    for photograph in photographs_of_two_people(lfw_mini):
        face = (await embedder.analyse(photograph, embed=Embed.ALL)).central
        assert face is not None
        assert face.embedding is not None
        vectors.append(face.embedding.vector)
    matrix = np.stack(vectors) @ np.stack(vectors).T
    same = np.kron(np.eye(2, dtype=bool), np.ones((3, 3), dtype=bool))
    assert matrix[same].min() > matrix[~same].max() + 0.1


def test_the_space_names_the_pack_and_follows_from_its_files(
    embedder: InsightFaceEmbedder, build: Build, models: Path, tmp_path: Path
) -> None:
    assert embedder.space.model == "tiny@insightface"
    assert embedder.space.dimension == 128
    moved = build(made(tmp_path, "other", *(models / name for name in FILES.values())))
    assert moved.space.digest == embedder.space.digest
    changed = made(tmp_path, "changed", models / FILES["detector"])
    # Bytes behind the last field of a protobuf message that nobody knows: the same model in another file.
    shutil.copyfile(models / FILES["recogniser"], changed.folder / "r.onnx")
    with (changed.folder / "r.onnx").open("ab") as file:
        file.write(b"\xa2\x06\x01x")
    assert build(changed).space.digest != embedder.space.digest


def test_threads_and_providers_reach_the_librarys_sessions(embedder: InsightFaceEmbedder) -> None:
    detection, recognition = (embedder._analyser.detector._look.args[0], embedder._analyser._vectors.args[0])  # type: ignore[attr-defined]  # partials
    for model in (detection, recognition):
        assert model.session.get_session_options().intra_op_num_threads == 1
        assert model.session.get_providers() == ["CPUExecutionProvider"]


async def test_new_sizes_make_no_new_sessions(embedder: InsightFaceEmbedder) -> None:
    for side in (64, 96, 160):
        await embedder.analyse(encoded(np.zeros((side, side, 3), np.uint8)), embed=Embed.NONE)
    sessions = embedder._analyser.detector._look.args[0].resolution_sessions  # type: ignore[attr-defined]  # a partial
    assert len(set(map(id, sessions.values()))) == 1


def test_a_provider_that_is_not_there_is_refused(build: Build) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has CUDA")
    with pytest.raises(PortRejected, match="FACEPASS_FACE_EMBEDDER__PROVIDERS"):
        build(providers=("cuda", "cpu"))


def test_a_missing_pack_names_its_folder_and_is_not_downloaded(build: Build, tmp_path: Path) -> None:
    pack = insightface_pack("buffalo_l", tmp_path)
    with pytest.raises(PackMissing, match="non-commercial research only") as missing:
        build(pack)
    assert str(tmp_path / "models" / "buffalo_l") in missing.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["detector", "recogniser"])
def test_half_a_pack_is_refused(build: Build, models: Path, tmp_path: Path, part: str) -> None:
    with pytest.raises(PortRejected, match="tiny"):
        build(made(tmp_path, "tiny", models / FILES[part]))


def test_a_file_that_is_no_model_is_unavailable(build: Build, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(PortUnavailable):
        build(made(tmp_path, "broken", tmp_path / "broken.onnx"))


@pytest.mark.parametrize("name", ["buffalo_l", "buffalo_s", "antelopev2", "raccoon_s"])
def test_insightfaces_own_packs_are_for_research_only(name: str, tmp_path: Path) -> None:
    pack = insightface_pack(name, tmp_path)
    assert "non-commercial research only" in pack.licence
    assert not pack.commercial


def test_nothing_is_assumed_of_an_unknown_pack(tmp_path: Path) -> None:
    pack = insightface_pack("house-blend", tmp_path)
    assert pack.licence.startswith("unknown")
    assert not pack.commercial


def test_a_licence_that_nobody_signed_allows_nothing(tmp_path: Path) -> None:
    pack = made(tmp_path, "buffalo_l")
    (pack.folder / "MODEL.LICENSE").write_text('{"grant": "commercial"}')
    assert not insightface_pack("buffalo_l", tmp_path).commercial


@pytest.mark.parametrize("name", ["", "..", "../models", "a/b", "a b", "/etc"])
def test_a_name_that_is_no_folders_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownPack):
        insightface_pack(name, tmp_path)


def test_a_download_that_fails_says_so_behind_the_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with caplog.at_level(logging.WARNING), pytest.raises(PackUnavailable, match="buffalo_sc"):
            download_pack(insightface_pack("buffalo_sc", tmp_path))
    assert "non-commercial research only" in caplog.text


def test_a_pack_that_is_there_is_not_downloaded_again(pack: InsightFacePack, caplog: pytest.LogCaptureFixture) -> None:
    download_pack(pack)
    assert caplog.text == ""


async def test_limits_and_budget_are_those_that_were_given(build: Build, astronaut: bytes) -> None:
    few = build(limits=ImageLimits(pixels=512 * 512 - 1))
    with pytest.raises(TooManyPixels):
        await few.analyse(astronaut, embed=Embed.NONE)
    await few.close()
    budget = DecodeBudget(1.0, wait_limit=0.01)
    busy = build(budget=budget)
    with budget.reserved(1.0), pytest.raises(PortBusy):
        await busy.analyse(astronaut, embed=Embed.NONE)
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
    await embedder.ping()
    assert embedder.name == "face_embedder"
    release.set()
    await blocking
    await embedder.close()
    with pytest.raises(PortUnavailable):
        await embedder.analyse(b"", embed=Embed.NONE)
