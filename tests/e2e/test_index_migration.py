import asyncio
import json
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import httpx
import numpy as np
import pytest
from dishka import Scope

from adapters.embedded.postgres import EmbeddedPostgres
from application.ports.face_embedder import FaceEmbedder
from application.use_cases.galleries.create_gallery import CreateGallery
from application.use_cases.references.enrol_batch import EnrolBatch, EnrolmentItem
from application.use_cases.references.enrol_references import Enrolled, SentImage
from domain.embedding import Embedding
from domain.gallery import Policy
from domain.workspace import WorkspaceId
from entrypoints.settings import ModelsSettings, Settings
from entrypoints.wiring.startup import opened
from tests.benchmarks.crowd import StandInProvider
from tests.conftest import ENVIRONMENT
from tests.e2e.running_service import FACEPASS, RunningService

CROWD: Final = 1_000
EACH: Final = 10
"""References of a person of the crowd."""
PAUSE: Final = 1.0
"""Seconds of a client between two rounds, so that the move gets its share of the machine."""
_PATIENCE: Final = 120.0
_LISTENS: Final = re.compile(r"listens on (http://\S+)")


@pytest.fixture
def target() -> Iterator[EmbeddedPostgres]:
    """Another PostgreSQL, for the new index alone."""
    with tempfile.TemporaryDirectory(prefix="facepass-target-") as folder:
        # Started by root it runs as another account, which must get to its folder.
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres", linger=0.1)
        try:
            yield server
        finally:
            server.stop()
            assert server.wait_ended(60.0)


@pytest.fixture
def service(open_pack_dir: Path, target: EmbeddedPostgres) -> Iterator[RunningService]:
    """One node, of the settings that all nodes and commands have."""
    settings = {
        "FACEPASS_NEXT_VECTOR_INDEX__BACKEND": "pgvector",
        "FACEPASS_NEXT_VECTOR_INDEX__NAME": "beside",
        "FACEPASS_NEXT_VECTOR_INDEX__URL": target.start(),
        "FACEPASS_NEXT_VECTOR_INDEX__HALF_PRECISION": "true",
    }
    with RunningService(open_pack_dir, ENVIRONMENT, **settings) as running:
        yield running


@contextmanager
def second_node(service: RunningService) -> Iterator[str]:
    """Another `facepass serve` over the same database; yields its address."""
    log = service.logs.with_name("second.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [FACEPASS, "serve", "--port", "0"], env=service._environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: bool(_LISTENS.search(log.read_text())) or process.poll() is not None)
        found = _LISTENS.search(log.read_text())
        assert found is not None, log.read_text()
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60.0)


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Client:
    """Enrols, searches and deletes all the while, at every node; the first wrong answer ends it.

    Somebody enrolled before is always found; somebody new at once, and after their deletion never; a stranger never.
    """

    def __init__(self, nodes: list[str], key: str, gallery: str, images: Sequence[bytes]) -> None:
        headers = {"X-API-Key": key}
        self._nodes = [httpx.Client(base_url=f"{node}/api/v1", headers=headers, timeout=60.0) for node in nodes]
        self._gallery = gallery
        self._resident, self._guest, self._stranger = images
        self._stopped = threading.Event()
        self.rounds = 0

    def __enter__(self) -> Self:
        self._enrol("resident", self._resident)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            node.close()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            name = f"guest {self.rounds}"
            person = self._enrol(name, self._guest)
            assert [name in found for found in self._found(self._guest)] == [True] * len(self._nodes)
            assert "resident" in self._found(self._resident, self._node(0))[0]
            assert self._found(self._stranger, self._node(1)) == [[]]
            gone = self._node(1).delete(f"/galleries/{self._gallery}/people/{person}")
            assert gone.status_code == 204, gone.text
            assert [name in found for found in self._found(self._guest)] == [False] * len(self._nodes)
            self.rounds += 1
            self._stopped.wait(PAUSE)

    def _enrol(self, name: str, image: bytes) -> str:
        answer = self._node(0).post(
            f"/galleries/{self._gallery}/references",
            files={"image": image},
            data={"external_id": f"{name} of {id(self)}"},
        )
        assert answer.status_code == 201, answer.text
        assert [one["searchable"] for one in answer.json()["accepted"]] == [True]
        return str(answer.json()["person"]["id"])

    def _found(self, image: bytes, *nodes: httpx.Client) -> list[list[str]]:
        """Names of this client's people, from each node; those of another client keep their own."""
        found = []
        for node in nodes or self._nodes:
            answer = node.post("/search", files={"image": image}, data={"gallery": self._gallery})
            assert answer.status_code == 200, answer.text
            names = [match["person"]["external_id"] for match in answer.json()["faces"][0]["matches"]]
            found.append([name.removesuffix(f" of {id(self)}") for name in names])
        return found

    def _node(self, step: int) -> httpx.Client:
        return self._nodes[(self.rounds + step) % len(self._nodes)]


class Clients:
    """Several of them, each in a thread."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients
        self._pool = ThreadPoolExecutor(len(clients))
        self._running: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._running = [self._pool.submit(client.run) for client in self._clients]
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.stop()
        self._pool.shutdown()

    def go_on(self, rounds: int = 1) -> None:
        """Wait until each has gone so many rounds more, all right."""
        wanted = [client.rounds + rounds for client in self._clients]
        until(
            lambda: (
                any(one.done() for one in self._running)
                or all(client.rounds >= number for client, number in zip(self._clients, wanted, strict=True))
            )
        )
        for one in self._running:
            if one.done():
                one.result()


def migrating(service: RunningService) -> "subprocess.Popen[bytes]":
    """Begin the move, in a process of its own."""
    return subprocess.Popen(
        [FACEPASS, "index", "migrate", "--to", "beside", "--yes"],
        env=service._environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def moved(service: RunningService, to: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(service.command("index", "migrate", "--to", to, "--yes", "--json"))
    return report


def state(service: RunningService) -> dict[str, Any]:
    (row,) = service.rows("SELECT * FROM index_state")
    return row


async def crowded(service: RunningService, models: Path, embedder: FaceEmbedder, workspace: WorkspaceId) -> None:
    """Enrol a gallery of people who are made up, by a process that takes vectors for images."""
    vectors = np.random.default_rng(5).standard_normal((CROWD, embedder.space.dimension)).astype(np.float32)
    images = [SentImage(content=Embedding.normalised(vector, embedder.space.id).to_bytes()) for vector in vectors]
    settings = Settings(data_dir=service.data, models=ModelsSettings(dir=models))
    async with opened(settings, StandInProvider(embedder.space)) as container:
        async with container(scope=Scope.REQUEST) as unit:
            await (await unit.get(CreateGallery))(workspace=workspace, name="crowd", policy=Policy(keep_images=False))
        enrol = await container.get(EnrolBatch)
        for start in range(0, CROWD, 10 * EACH):
            items = [
                EnrolmentItem(images=tuple(images[first : first + EACH]))
                for first in range(start, start + 10 * EACH, EACH)
            ]
            made = await enrol(workspace=workspace, gallery="crowd", items=items)
            assert [len(one.accepted) for one in made if isinstance(one, Enrolled)] == [EACH] * 10


@pytest.fixture
async def key(service: RunningService, open_pack_dir: Path, embedder: FaceEmbedder) -> str:
    """An API key of the running service, which has its crowd."""
    made = await asyncio.to_thread(service.new_key)
    await asyncio.to_thread(service.start)
    (workspace,) = await asyncio.to_thread(service.rows, "SELECT id FROM workspaces")
    await crowded(service, open_pack_dir, embedder, WorkspaceId(workspace["id"]))
    return made


async def test_an_installation_of_two_nodes_moves_to_another_index_and_back_while_it_serves(
    service: RunningService, target: EmbeddedPostgres, key: str, astronaut: bytes, cast: list[bytes]
) -> None:
    await asyncio.to_thread(there_and_back, service, target, key, astronaut, cast)


def there_and_back(
    service: RunningService, target: EmbeddedPostgres, key: str, stranger: bytes, cast: list[bytes]
) -> None:
    with ExitStack() as stack:
        nodes = [service.url, stack.enter_context(second_node(service))]
        clients = [
            stack.enter_context(Client(nodes, key, gallery, (*images, stranger)))
            for gallery, images in (("default", cast[:2]), ("crowd", cast[2:4]))
        ]
        running = stack.enter_context(Clients(clients))
        running.go_on()
        interrupted_and_resumed(service, target, running)
        taken_back_and_ended(service, running)
    until(lambda: not service.rows("SELECT 1 FROM reconciliations"))
    for checked in json.loads(service.command("index", "verify", "--all", "--json")):
        assert checked["agrees"], checked


def interrupted_and_resumed(service: RunningService, target: EmbeddedPostgres, running: Clients) -> None:
    """Killed while it fills, without its target while it goes on: nobody notices."""
    killed = migrating(service)
    until(lambda: (state(service)["mark_references"] or 0) > 0)
    killed.kill()
    killed.communicate(timeout=_PATIENCE)
    left = state(service)
    assert (left["serving"], left["beside"], left["filled"]) == ("pgvector", "beside", False)
    assert 0 < left["mark_references"] < CROWD

    target.stop()
    assert target.wait_ended(60.0)
    running.go_on()
    failed = migrating(service)
    shown = json.loads(service.command("index", "status", "--json"))
    assert (shown["serving"], shown["beside"], shown["filled"]) == ("pgvector", "beside", False)
    assert 0 < shown["walked"] < CROWD <= shown["references"]
    _, said = failed.communicate(timeout=_PATIENCE)
    assert failed.returncode == 1, said
    for part in (b"dependency_unavailable", b"index migrate --to beside", b"index migrate --drop beside"):
        assert part in said
    until(lambda: bool(service.rows("SELECT 1 FROM reconciliations WHERE attempts > 0")))
    assert state(service)["serving"] == "pgvector"
    target.start()

    report = moved(service, "beside")
    assert (report["done"], report["serving"], report["beside"], report["filled"]) == (True, "beside", "pgvector", True)
    assert report["compared"]["lasting"] == []
    assert report["compared"]["decisions"]["differing"] == []
    assert report["compared"]["decisions"]["probes"] > 100
    running.go_on()


def taken_back_and_ended(service: RunningService, running: Clients) -> None:
    report = moved(service, "pgvector")
    assert (report["done"], report["serving"], report["beside"]) == (True, "pgvector", "beside")
    running.go_on()
    dropped = json.loads(service.command("index", "migrate", "--drop", "beside", "--yes", "--json"))
    assert (dropped["dropped"], dropped["emptied"]) == ("beside", True)
    running.go_on()
    assert (state(service)["serving"], state(service)["beside"]) == ("pgvector", None)
