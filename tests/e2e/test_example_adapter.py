import json
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import CHECKOUT, ENVIRONMENT
from tests.e2e.made_up_package import made_up_package
from tests.e2e.running_service import RunningService

pytestmark = pytest.mark.models

EXAMPLE = CHECKOUT / "tests" / "example_adapter"
PATIENCE = 300.0

FACEPASS = """#!{python}
from entrypoints.cli.main import main
main()
"""


class Installed(RunningService):
    """The service out of an environment of its own, where the example is installed and chosen."""

    def __init__(self, environment: Path, models: Path, folder: Path) -> None:
        super().__init__(
            models,
            ENVIRONMENT,
            FACEPASS_VECTOR_INDEX__BACKEND="numpy-files",
            FACEPASS_VECTOR_INDEX__OPTIONS__FOLDER=str(folder),
        )
        self.python = environment / "bin" / "python"
        self.program = environment / "bin" / "facepass"  # type: ignore[misc]  # this one's, not the checkout's


def wheel(project: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Facepass and the example as wheels, and everything else from where these tests run: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    for name, project in (("facepass", CHECKOUT), ("example", EXAMPLE)):
        # A wheel without a .data folder is installed by being unpacked (PEP 427).
        with zipfile.ZipFile(wheel(project, folder / name)) as archive:
            archive.extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    program = folder / "venv" / "bin" / "facepass"
    program.write_text(FACEPASS.format(python=python))
    program.chmod(0o755)
    return folder / "venv"


@pytest.fixture(scope="module")
def index_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="module")
def service(environment: Path, open_pack_dir: Path, index_folder: Path) -> Iterator[Installed]:
    with Installed(environment, open_pack_dir, index_folder) as running:
        running.begin()
        running.wait()
        yield running


@pytest.fixture(scope="module")
def client(service: Installed) -> Iterator[httpx.Client]:
    with service.client(service.new_key()) as opened:
        yield opened


def listed(service: Installed, **settings: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(service.result("adapters", "list", "--json", **settings).stdout):
        found.setdefault(one["name"], []).append(one)
    return found


def search(client: httpx.Client, image: bytes) -> list[str]:
    answer = client.post("/search", files={"image": image})
    assert answer.status_code == 200, answer.text
    return [match["person"]["external_id"] for match in answer.json()["faces"][0]["matches"]]


def test_the_service_comes_out_of_the_wheel(service: Installed) -> None:
    asked = [service.python, "-P", "-c", "import adapters, application; print(adapters.__file__)"]
    place = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert Path(place).is_relative_to(service.python.parents[1])


def test_it_is_listed_with_its_owner_and_chosen(service: Installed) -> None:
    (found,) = listed(service)["numpy-files"]
    assert found == {
        "port": "vector_index",
        "name": "numpy-files",
        "owner": "facepass-numpy-index 1.0.0",
        "chosen": True,
        "trouble": "",
    }


def test_it_keeps_every_promise_that_the_command_tries(service: Installed, index_folder: Path) -> None:
    before = sorted(index_folder.rglob("*.npz"))
    done = service.result("adapters", "check", "numpy-files", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kept"]
    assert found["failed"] == 0
    assert found["passed"] > 30
    assert {one["promise"] for one in found["report"]["promises"] if one["outcome"] == "not_tried"} == {
        "what was removed is gone from behind too",
        "a backend that is gone is unavailable",
    }
    assert sorted(index_folder.rglob("*.npz")) == before


def test_its_own_tests_run_the_whole_kit(service: Installed) -> None:
    done = subprocess.run(
        [service.python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=EXAMPLE,
        env={name: value for name, value in ENVIRONMENT.items() if not name.startswith(("FACEPASS_", "PYTEST_"))},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def test_it_serves_enrolments_and_searches(
    service: Installed, client: httpx.Client, index_folder: Path, astronaut: bytes, cast: list[bytes]
) -> None:
    for number, image in enumerate([astronaut, *cast[:3]]):
        enrolled = client.post(
            "/galleries/default/references", files={"image": image}, data={"external_id": f"person-{number}"}
        )
        assert enrolled.status_code == 201, enrolled.text
        assert enrolled.json()["accepted"][0]["searchable"] is True
    assert search(client, astronaut) == ["person-0"]
    assert search(client, cast[1])[0] == "person-2"
    assert list(index_folder.rglob("*.npz"))
    assert "agree on 4 references" in service.command("index", "verify")


def test_an_index_that_is_gone_costs_searches_and_nothing_else(
    client: httpx.Client, index_folder: Path, astronaut: bytes
) -> None:
    made = client.post("/galleries", json={"name": "outage"})
    assert made.status_code == 201
    place = {"gallery": "outage", "external_id": "eileen"}
    unmounted = index_folder.with_suffix(".unmounted")
    index_folder.rename(unmounted)
    try:
        enrolled = client.post(
            "/galleries/outage/references", files={"image": astronaut}, data={"external_id": "eileen"}
        )
        assert enrolled.status_code == 201
        assert enrolled.json()["accepted"][0]["searchable"] is False
        assert client.post("/verify", files={"image": astronaut}, data=place).json()["verified"] is True
        refused = client.post("/search", files={"image": astronaut}, data={"gallery": "outage"})
        assert refused.status_code == 503
        assert str(index_folder) not in refused.text
    finally:
        unmounted.rename(index_folder)
    deadline = time.monotonic() + PATIENCE
    while (found := client.post("/search", files={"image": astronaut}, data={"gallery": "outage"})).status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert found.json()["faces"][0]["matches"][0]["person"]["external_id"] == "eileen"


class TestTrouble:
    """What stops the start, and what the operator is told."""

    def refused(self, service: Installed, **settings: str) -> str:
        done = service.result("serve", "--port", "0", FACEPASS_LOG_LEVEL="info", **settings)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        (said,) = [line for line in done.stderr.splitlines() if line.startswith("facepass:")]
        return said

    def test_two_packages_that_claim_one_name(self, service: Installed, tmp_path: Path) -> None:
        made_up_package(tmp_path, "rival", {"vector_index": {"numpy-files": "rival:open_index"}})
        said = self.refused(service, PYTHONPATH=str(tmp_path))
        assert "'numpy-files' is claimed by facepass-numpy-index 1.0.0 and rival 0.1" in said
        assert "FACEPASS_VECTOR_INDEX__BACKEND" in said
        found = listed(service, PYTHONPATH=str(tmp_path))["numpy-files"]
        assert [one["owner"] for one in found] == ["facepass-numpy-index 1.0.0", "rival 0.1"]
        assert all("is claimed by" in one["trouble"] for one in found)

    def test_a_package_that_claims_a_built_in_name(self, service: Installed, tmp_path: Path) -> None:
        made_up_package(tmp_path, "rival", {"blob_store": {"filesystem": "rival:open_store"}})
        said = self.refused(service, PYTHONPATH=str(tmp_path))
        assert "FACEPASS_BLOB_STORE__BACKEND: the name 'filesystem' is claimed by facepass and rival 0.1" in said

    def test_a_name_that_nobody_has(self, service: Installed) -> None:
        said = self.refused(service, FACEPASS_VECTOR_INDEX__BACKEND="numpy-file")
        assert "there is no vector index 'numpy-file'; there is numpy-files, pgvector, qdrant" in said

    def test_a_package_that_does_not_import(self, service: Installed, tmp_path: Path) -> None:
        made_up_package(
            tmp_path, "broken", {"vector_index": {"broken": "broken:open_index"}}, broken="import nothing_like_it\n"
        )
        settings = {"PYTHONPATH": str(tmp_path), "FACEPASS_VECTOR_INDEX__BACKEND": "broken"}
        reason = "of broken 0.1 cannot be loaded: ModuleNotFoundError: No module named 'nothing_like_it'"
        assert reason in self.refused(service, **settings)
        assert reason in listed(service, **settings)["broken"][0]["trouble"]

    def test_a_missing_option(self, service: Installed) -> None:
        said = self.refused(service, FACEPASS_VECTOR_INDEX__OPTIONS__FOLDER="")
        assert "takes the option FOLDER" in said
