import io
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import insightface
import numpy as np
import pytest
import skimage.data
from PIL import Image

from application.ports.face_embedder import FaceEmbedder
from entrypoints.settings import ModelsSettings, Settings
from entrypoints.wiring.startup import opened
from tests.conftest import ENVIRONMENT
from tests.e2e.running_service import RunningService


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys of the running service."""

    mine: str
    """May do everything in the workspace `default`."""
    other: str
    """May do everything in the workspace `other`."""
    spare: str
    """Another one of `default`, to be spoilt."""


@pytest.fixture(scope="session")
def _served(open_pack_dir: Path) -> Iterator[tuple[RunningService, Keys]]:
    with RunningService(open_pack_dir, ENVIRONMENT) as running:
        mine = running.new_key()
        running.begin()
        # Commands beside a server that starts: the ordinary case.
        with ThreadPoolExecutor(2) as pool:
            other, spare = pool.map(running.new_key, ["other", "default"])
        running.wait()
        yield running, Keys(mine, other, spare)


@pytest.fixture(scope="session")
def service(_served: tuple[RunningService, Keys]) -> RunningService:
    """The one server of this process."""
    return _served[0]


@pytest.fixture(scope="session")
def keys(_served: tuple[RunningService, Keys]) -> Keys:
    """Its API keys."""
    return _served[1]


@pytest.fixture(scope="session")
def client(service: RunningService, keys: Keys) -> Iterator[httpx.Client]:
    """Calls the API in the workspace `default`."""
    with service.client(keys.mine) as opened:
        yield opened


@pytest.fixture(scope="session")
def stranger(service: RunningService, keys: Keys) -> Iterator[httpx.Client]:
    """Calls the API in another workspace."""
    with service.client(keys.other) as opened:
        yield opened


@pytest.fixture
def gallery(client: httpx.Client) -> str:
    """The path of a gallery with nobody in it."""
    name = f"g{uuid4().hex}"
    assert client.post("/galleries", json={"name": name}).status_code == 201
    return f"/galleries/{name}"


@pytest.fixture(scope="session")
def astronaut() -> bytes:
    """A portrait of Eileen Collins (NASA, public domain), as a JPEG."""
    return jpeg(skimage.data.astronaut())


@pytest.fixture(scope="session")
def again() -> bytes:
    """The same portrait, smaller, turned to the other side, and compressed more."""
    picture = Image.fromarray(skimage.data.astronaut()).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((400, 400))
    return jpeg(np.asarray(picture), quality=80)


@pytest.fixture(scope="session")
def group() -> bytes:
    """Six people: the sample photograph of insightface."""
    return (Path(insightface.__file__).parent / "data/images/t1.jpg").read_bytes()


@pytest.fixture(scope="session")
def faceless() -> bytes:
    """A cup of coffee, as a JPEG."""
    return jpeg(skimage.data.coffee())


@pytest.fixture(scope="session")
def cast(group: bytes) -> list[bytes]:
    """The six people of the group, one by one, as JPEGs."""
    picture = Image.open(io.BytesIO(group))
    faces = [(464, 267), (903, 61), (746, 345), (60, 269), (1135, 270), (274, 155)]
    return [
        jpeg(np.asarray(picture.crop((max(0, x - 45), max(0, y - 45), x + 150, y + 185)).resize((390, 460))))
        for x, y in faces
    ]


def jpeg(pixels: np.ndarray, quality: int = 92) -> bytes:
    """Encode H x W x 3 RGB pixels."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


@pytest.fixture(scope="session")
async def embedder(open_pack_dir: Path) -> AsyncIterator[FaceEmbedder]:
    """The open pack, loaded once for all services in this process."""
    settings = Settings(data_dir=open_pack_dir.parent / "unused", models=ModelsSettings(dir=open_pack_dir))
    async with opened(settings) as container:
        yield await container.get(FaceEmbedder)
