import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from adapters.persistence.database import engine
from application.conformance.blob_store import BlobStoreContract
from application.conformance.contract import Contract
from application.conformance.face_embedder import FaceEmbedderContract
from application.conformance.job_queue import JobQueueContract
from application.conformance.liveness_checker import LivenessCheckerContract
from application.conformance.vector_index import VectorIndexContract
from entrypoints.wiring.adapters import Port
from entrypoints.wiring.checks import Promise, Report, check
from entrypoints.wiring.start_error import StartError
from tests.conftest import CHECKOUT, ENVIRONMENT
from tests.e2e.made_up_package import made_up_package

GUIDE = (CHECKOUT / "docs" / "adapters.md").read_text()
EXAMPLE = CHECKOUT / "tests" / "example_adapter"

BLOB_STORES = """
from contextlib import asynccontextmanager
from pathlib import Path
from adapters.blob_store.filesystem import FilesystemBlobStore

@asynccontextmanager
async def open_files(*, options):
    print("noise on standard output")
    yield FilesystemBlobStore(Path(options["folder"]))
"""

VECTOR_INDEXES = """
import asyncio, os, sys, time
from contextlib import asynccontextmanager
from adapters.vector_index.memory import MemoryVectorIndex
from application.ports.vector_index import VectorIndex

class Wrapped(VectorIndex):
    def __init__(self, space):
        self._index = MemoryVectorIndex(space)

    async def search(self, probe, **wanted):
        return await self._index.search(probe, **wanted)

    async def upsert(self, entries):
        await self._index.upsert(entries)

    async def remove(self, references):
        await self._index.remove(references)

    async def entries(self, gallery):
        async for entry in self._index.entries(gallery):
            yield entry

    async def clear(self, gallery):
        await self._index.clear(gallery)

class Forgetful(Wrapped):
    async def remove(self, references):
        await self._index.remove(references[1:])

class Hanging(Wrapped):
    async def search(self, probe, **wanted):
        if wanted.get("people") == 3:
            time.sleep(3600)
        return await super().search(probe, **wanted)

class Dying(Wrapped):
    async def search(self, probe, **wanted):
        if wanted.get("people") == 3:
            os.write(2, b"out of everything")
            os._exit(70)
        return await super().search(probe, **wanted)

def opener(kind):
    @asynccontextmanager
    async def opened(*, space, options):
        yield kind(space)
    return opened

forgetful, hanging, dying = opener(Forgetful), opener(Hanging), opener(Dying)

@asynccontextmanager
async def refusing(*, space, options):
    raise KeyError("folder")
    yield
"""

JOB_QUEUES = """
from contextlib import asynccontextmanager
from adapters.job_queue.in_process import InProcessJobQueue
from application.conformance.job_queue import job

@asynccontextmanager
async def open_shared(*, options):
    queue = InProcessJobQueue()
    await queue.put(job(1))
    yield queue
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with third parties' adapters, good and bad."""
    folder = tmp_path / "packages"
    made_up_package(
        folder,
        "third-party",
        {
            "vector_index": {kind: f"indexes:{kind}" for kind in ("forgetful", "hanging", "dying", "refusing")},
            "blob_store": {"files": "stores:open_files"},
            "job_queue": {"shared": "queues:open_shared", "files": "queues:open_shared"},
        },
        indexes=VECTOR_INDEXES,
        stores=BLOB_STORES,
        queues=JOB_QUEUES,
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path, packages: Path) -> dict[str, str]:
    plain = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("FACEPASS_")}
    return {**plain, "FACEPASS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(packages)}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], tmp_path: Path) -> pytest.MonkeyPatch:
    """This process as if it had been started with these settings."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def facepass(*arguments: str, environment: dict[str, str], code: str = "") -> "subprocess.CompletedProcess[str]":
    """Call the command, after some code."""
    call = f"{code}\nfrom entrypoints.cli.main import main\nmain(prog_name='facepass')"
    return subprocess.run(
        [sys.executable, "-c", call, *arguments],
        env=environment,
        cwd=environment["FACEPASS_DATA_DIR"].rpartition("/")[0],
        capture_output=True,
        text=True,
        timeout=300.0,
        check=False,
    )


async def checked(port: Port, name: str, *, longest: float = 120.0) -> Report:
    return await check(port, name, heard=lambda _: None, longest=longest)


def outcomes(report: Report, outcome: str) -> list[Promise]:
    return [one for one in report.promises if one.outcome == outcome]


def test_every_adapter_is_listed_by_port_with_its_owner(environment: dict[str, str]) -> None:
    listed: list[dict[str, Any]] = json.loads(facepass("adapters", "list", "--json", environment=environment).stdout)
    found = {(one["port"], one["name"]): (one["owner"], one["chosen"], one["trouble"]) for one in listed}
    assert found["vector_index", "pgvector"] == ("facepass", True, "")
    assert found["vector_index", "qdrant"] == ("facepass", False, "")
    assert found["blob_store", "files"] == ("third-party 0.1", False, "")
    assert len([port for port, name in found if name == "files"]) == 2


def test_a_chosen_adapter_that_is_not_there_is_listed_as_trouble(environment: dict[str, str]) -> None:
    done = facepass("adapters", "list", environment={**environment, "FACEPASS_BLOB_STORE__BACKEND": "cloud"})
    assert done.returncode == 0
    (row,) = [line for line in done.stdout.splitlines() if "cloud" in line and "blob store " in line.split("│")[1]]
    assert "chosen" in row
    assert "there is no blob store" in row


def test_a_name_of_several_ports_asks_which(environment: dict[str, str]) -> None:
    done = facepass("adapters", "check", "files", environment=environment)
    assert done.returncode == 1
    assert "--port blob_store or --port job_queue" in done.stderr


def test_a_name_that_nobody_has_is_one_line(environment: dict[str, str]) -> None:
    done = facepass("adapters", "check", "nothing", environment=environment)
    assert done.returncode == 1
    assert "facepass adapters list" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_pytest_the_command_says_how_to_get_it(environment: dict[str, str]) -> None:
    hidden = "import sys; sys.modules['pytest'] = None"
    done = facepass("adapters", "check", "filesystem", environment=environment, code=hidden)
    assert done.returncode == 1
    assert "pip install 'facepass[conformance]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_keeps_out_of_the_operators_blobs(environment: dict[str, str], tmp_path: Path) -> None:
    blobs = tmp_path / "data" / "blobs"
    (blobs / "0199_").mkdir(parents=True)
    (blobs / "0199_" / "kept.blob").write_bytes(b"sealed")
    noise = {"PYTEST_ADDOPTS": "--nonsense", "PYTEST_PLUGINS": "nonsense"}
    done = facepass("adapters", "check", "filesystem", environment={**environment, **noise})
    assert done.returncode == 0, done.stderr
    assert re.search(r"filesystem keeps all \d\d promises that were tried; \d+ were not tried", done.stdout)
    assert "What was put is got" in done.stdout
    assert [path for path in blobs.rglob("*") if path.is_file()] == [blobs / "0199_" / "kept.blob"]
    assert sorted(path.name for path in blobs.iterdir()) == [".incoming", "0199_"]


async def test_a_check_of_pgvector_leaves_the_database_as_it_was(
    settings: pytest.MonkeyPatch, database_url: str
) -> None:
    settings.setenv("FACEPASS_DATABASE__URL", database_url)
    before = await tables(database_url)
    report = await checked(Port.VECTOR_INDEX, "pgvector")
    assert report.kept
    assert report.count("passed") > 30
    assert await tables(database_url) == before


async def tables(url: str) -> list[str]:
    pool = engine(url, connections=1, timeout=10.0, autocommit=True)
    async with pool.connect() as connection:
        found = await connection.scalars(text("SELECT tablename FROM pg_tables ORDER BY 1"))
    await pool.dispose()
    return list(found)


async def test_a_third_partys_store_is_tried_below_a_prefix(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "third-party"
    (folder / "kept").mkdir(parents=True)
    (folder / "kept" / "a.blob").write_bytes(b"sealed")
    settings.setenv("FACEPASS_BLOB_STORE__OPTIONS__FOLDER", str(folder))
    report = await checked(Port.BLOB_STORE, "files")
    assert report.kept
    reasons = {one.promise: one.reason for one in outcomes(report, "not_tried")}
    assert "too long together" in reasons["the longest key works"]
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "kept" / "a.blob"]


@pytest.mark.usefixtures("settings")
class TestFaults:
    async def test_a_broken_promise_is_named_with_its_reason(self) -> None:
        report = await checked(Port.VECTOR_INDEX, "forgetful")
        assert not report.kept
        broken = {one.promise: one for one in outcomes(report, "failed")}
        assert "a removed reference is not found again" in broken
        assert "galleries do not mix" not in broken
        assert "assert " in broken["a removed reference is not found again"].reason
        assert not any("\n" in one.reason for one in broken.values())
        assert "await index.remove(" in broken["a removed reference is not found again"].details

    async def test_an_adapter_that_hangs_is_said_to(self) -> None:
        report = await checked(Port.VECTOR_INDEX, "hanging", longest=20.0)
        (broken,) = outcomes(report, "failed")
        assert broken.reason == "the process did not end within 20 seconds"
        assert report.promises[-1].outcome == "not_tried"
        assert report.promises[-1].reason == "the process did not end within 20 seconds before this"

    async def test_an_adapter_that_dies_is_said_to_with_its_last_words(self) -> None:
        report = await checked(Port.VECTOR_INDEX, "dying")
        (broken,) = outcomes(report, "failed")
        assert broken.reason == "the process died (exit status 70)"
        assert not report.kept

    async def test_an_adapter_that_cannot_be_opened_is_one_reason_not_forty(self) -> None:
        with pytest.raises(StartError, match="refusing cannot be opened: KeyError: 'folder'"):
            await checked(Port.VECTOR_INDEX, "refusing")

    async def test_a_queue_that_holds_others_jobs_is_left_alone(self) -> None:
        with pytest.raises(StartError, match="it holds 1 jobs under a name made up a moment ago"):
            await checked(Port.JOB_QUEUE, "shared")

    async def test_whoever_stops_waiting_leaves_no_process_behind(self) -> None:
        begun = asyncio.Event()
        checking = asyncio.create_task(check(Port.VECTOR_INDEX, "forgetful", heard=lambda _: begun.set()))
        await begun.wait()
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        assert subprocess.run(["pgrep", "-f", "wiring.trial vector_index forgetful"], check=False).returncode == 1  # noqa: ASYNC221, S607 - at once


def test_the_guide_shows_code_of_the_example() -> None:
    sources = [path.read_text() for path in [*EXAMPLE.rglob("*.py"), EXAMPLE / "pyproject.toml"]]
    shown = re.findall(r"```(?:python|toml)\n(.*?)```", GUIDE, re.DOTALL)
    assert len(shown) == 5
    assert [block for block in shown if not any(block.strip("\n") in source for source in sources)] == []


@pytest.mark.parametrize(
    "contract",
    [VectorIndexContract, BlobStoreContract, JobQueueContract, FaceEmbedderContract, LivenessCheckerContract],
)
def test_the_guide_names_whatever_can_be_declared(contract: type[Contract]) -> None:
    (row,) = re.findall(rf"^\| `{contract.__name__}` \|.*$", GUIDE, re.MULTILINE)
    named = set(re.findall(r"`(\w+)(?: = False)?`", row)) - {contract.__name__, "SPACE"}
    declared = {name for name in contract.__annotations__ if not name.startswith("_")}
    assert declared <= named
    assert {name for name in named if not hasattr(contract, name)} == set()
