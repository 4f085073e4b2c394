import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from entrypoints.cli.serve import share_of
from entrypoints.settings import read_settings
from tests.conftest import ENVIRONMENT
from tests.e2e.running_service import RunningService
from tests.redis_server import redis_server

PROCESSES = 2
PATIENCE = 60.0


@pytest.fixture(scope="module")
def installation(open_pack_dir: Path) -> Iterator[RunningService]:
    """Two processes whose first start this is: key, cluster and schema are not there yet."""
    with (
        redis_server() as redis,
        RunningService(open_pack_dir, ENVIRONMENT, **several(redis.url)) as running,
    ):
        yield running


@pytest.fixture
def service(installation: RunningService) -> RunningService:
    if not installation.running:
        installation.start()
    return installation


def several(redis: str) -> dict[str, str]:
    return {
        "FACEPASS_HTTP__PROCESSES": str(PROCESSES),
        "FACEPASS_JOB_QUEUE__BACKEND": "arq",
        "FACEPASS_JOB_QUEUE__URL": redis,
        "FACEPASS_CACHE__BACKEND": "redis",
        "FACEPASS_CACHE__URL": redis,
        "FACEPASS_IMAGE__BUDGET_MEGAPIXELS": "80",
    }


def processes(service: RunningService) -> list[psutil.Process]:
    return psutil.Process(service.pid).children()


def until(said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def client_of(service: RunningService, process: psutil.Process, key: str | None = None) -> Iterator[httpx.Client]:
    """Return a client whose only connection this process has taken; which one does is the system's choice."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with httpx.Client(
            base_url=f"{service.url}/api/v1", headers={} if key is None else {"X-API-Key": key}, timeout=PATIENCE
        ) as client:
            answer = client.get("/openapi.json")
            here = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
            if any(taken.raddr and taken.raddr.port == here for taken in process.net_connections("tcp")):
                yield client
                return
        assert time.monotonic() < deadline


def live(service: RunningService) -> int:
    """Ask over a connection of its own, which any process may take."""
    return httpx.get(f"{service.url}/health/live", timeout=PATIENCE).status_code


def test_either_process_answers_and_finds_what_the_other_was_told(service: RunningService, astronaut: bytes) -> None:
    one, other = processes(service)
    key = service.new_key()
    with client_of(service, one, key) as client:
        enrolled = client.post(
            "/galleries/default/references", files={"image": astronaut}, data={"external_id": "collins"}
        )
        assert enrolled.status_code == 201
    with client_of(service, other, key) as client:
        (face,) = client.post("/search", files={"image": astronaut}).json()["faces"]
        assert [match["person"]["external_id"] for match in face["matches"]] == ["collins"]


def test_a_process_that_is_killed_is_replaced_and_nobody_waits_for_it(service: RunningService) -> None:
    one, other = processes(service)
    one.kill()
    until(lambda: one not in processes(service))
    while len(processes(service)) < PROCESSES:
        assert live(service) == 200
    (new,) = [process for process in processes(service) if process != other]
    with client_of(service, new):
        pass
    assert service.logs.read_text().count("process_ended") == 1


def test_a_start_that_cannot_be_says_why_once(service: RunningService) -> None:
    port = str(urlsplit(service.url).port)
    done = service.result("serve", "--port", port)
    assert (done.returncode, done.stderr.count(f"facepass: cannot listen on 127.0.0.1 port {port}: ")) == (1, 1)

    done = service.result("serve", "--port", "0", FACEPASS_FACE_EMBEDDER__PACK="nonesuch")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(re.findall(r"^facepass: .*nonesuch", done.stderr, re.MULTILINE)) == 1


def test_a_service_that_is_told_to_end_answers_what_it_has_begun_and_leaves_no_process(
    service: RunningService, astronaut: bytes
) -> None:
    everyone = [psutil.Process(service.pid), *processes(service)]
    where = urlsplit(service.url)
    call = httpx.Request(
        "POST",
        f"{service.url}/api/v1/search",
        headers={"X-API-Key": service.new_key(), "Expect": "100-continue", "Connection": "close"},
        files={"image": astronaut},
    )
    body = call.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in call.headers.items())
    with socket.create_connection((str(where.hostname), int(where.port or 0)), PATIENCE) as line:
        line.sendall(f"POST {call.url.path} HTTP/1.1\r\n{head}\r\n".encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 100")
        status: list[int | None] = []
        ending = threading.Thread(target=lambda: status.append(service.stop(signal.SIGTERM)))
        ending.start()
        until(lambda: not listens(str(where.hostname), int(where.port or 0)))
        line.sendall(body)
        assert line.recv(1000).startswith(b"HTTP/1.1 200")
    ending.join(PATIENCE)
    assert status == [0]
    assert not any(process.is_running() for process in everyone)


def test_a_service_that_is_told_to_end_while_it_starts_ends_and_leaves_no_process(
    installation: RunningService,
) -> None:
    assert not installation.running
    installation.begin()
    until(lambda: len(processes(installation)) > 0)
    everyone = [psutil.Process(installation.pid), *processes(installation)]
    assert installation.stop(signal.SIGTERM) == 0
    assert not any(process.is_running() for process in everyone)


def test_processes_end_with_the_one_that_keeps_them(service: RunningService) -> None:
    left = processes(service)
    service.kill()
    assert psutil.wait_procs(left, timeout=PATIENCE)[1] == []


def test_what_is_set_is_shared_out_among_the_processes() -> None:
    given = {
        "FACEPASS_DATABASE__POOL_SIZE": "9",
        "FACEPASS_FACE_EMBEDDER__THREADS": "3",
        "FACEPASS_NEXT_FACE_EMBEDDER__THREADS": "1",
    }
    settings = share_of(read_settings({**several("redis://host"), **given}, dotenv=None))
    assert settings.image.budget_megapixels == settings.image.max_megapixels == 40.0
    assert settings.database.pool_size == 5
    assert (settings.face_embedder.threads, settings.next_face_embedder.threads) == (2, 1)

    settings = share_of(read_settings(several("redis://host"), dotenv=None))
    assert settings.face_embedder.threads == -(-(os.cpu_count() or 1) // PROCESSES)


def listens(host: str, port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex((host, port)) == 0
