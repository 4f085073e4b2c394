"""A service of the benchmark's own: data folder, master key, server; nothing is left of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from adapters.embedded.postgres import EmbeddedPostgres
from entrypoints.settings import Settings, process_environment, read_settings
from tests.benchmarks.load import Address, Connection, get

_FACEPASS: Final = Path(sys.executable).with_name("facepass")
_PATIENCE: Final = 60.0
_POLL: Final = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    pid: int
    address: Address
    seconds: float
    """From the start of the process until `/health/ready` said 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throwaway:
    folder: Path
    environment: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        return read_settings(self.environment, dotenv=None)

    @property
    def cluster(self) -> Path:
        return self.settings.data_path / "postgres"

    def bootstrapped(self) -> dict[str, Any]:
        """Run `facepass bootstrap`; its answer holds the API key."""
        command = [str(_FACEPASS), "bootstrap", "--json"]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, check=True, stdout=subprocess.PIPE)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    @contextmanager
    def serving(self) -> Iterator[Server]:
        """Run `facepass serve` until the block ends."""
        began = time.perf_counter()
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [_FACEPASS, "serve", "--port", "0"],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # an interrupt is ours to pass on, after what is measured was told
            )
        try:
            yield self._ready(process, began)
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def ended(self) -> bool:
        """Wait until nothing of the private PostgreSQL runs."""
        return EmbeddedPostgres(self.cluster).wait_ended(_PATIENCE)

    def _ready(self, process: "subprocess.Popen[bytes]", began: float) -> Server:
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        if "http://" not in said:
            raise RuntimeError("the server did not start: " + (self.folder / "server.log").read_text()[-2000:])
        url = urlsplit(said.split()[3])
        address = Address(str(url.hostname), int(url.port or 0))
        with Connection(address) as connection:
            while connection.call(get("/health/ready")).status != 200:
                if time.perf_counter() - began > _PATIENCE:
                    raise RuntimeError("the server does not become ready")
                time.sleep(_POLL)
        return Server(pid=process.pid, address=address, seconds=time.perf_counter() - began)


@contextmanager
def throwaway(models: Path) -> Iterator[Throwaway]:
    """Make a folder with everything in it, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="facepass-benchmark-"))
    # Started by root, PostgreSQL runs as another account, which must get to its folder.
    folder.chmod(0o711)
    environment = {name: value for name, value in process_environment().items() if not name.startswith("FACEPASS_")}
    environment["FACEPASS_LOG_LEVEL"] = "error"
    environment |= {"FACEPASS_DATA_DIR": str(folder / "data"), "FACEPASS_MODELS__DIR": str(models)}
    made = Throwaway(folder=folder, environment=environment)
    try:
        yield made
    finally:
        if made.cluster.exists():
            made.ended()
        shutil.rmtree(folder, ignore_errors=True)


def memory(pid: int) -> int:
    """Bytes of a process that are in memory (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory(pid: int) -> int:
    """The most bytes that a process ever had in memory."""
    with suppress(StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    return 0
