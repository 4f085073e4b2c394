import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import asyncpg
import httpx
from sqlalchemy.engine import make_url

from adapters.embedded.postgres import EmbeddedPostgres

FACEPASS: Final = Path(sys.executable).with_name("facepass")
_PATIENCE: Final = 120.0
_LISTENS: Final = re.compile(r"listens on (http://\S+)")


class RunningService:
    """`facepass serve` as an operator starts it: a process of its own, a data folder, a private PostgreSQL.

    Everything it keeps goes when the block ends, and so does every process.
    """

    program: ClassVar[Path] = FACEPASS

    def __init__(self, models: Path, environment: Mapping[str, str], **settings: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="facepass-e2e-")
        # Started by root, PostgreSQL runs as another account, which must get to its folder.
        Path(self._folder.name).chmod(0o711)
        self.data = Path(self._folder.name) / "data"
        self.logs = Path(self._folder.name) / "server.log"
        plain = {name: value for name, value in environment.items() if not name.startswith("FACEPASS_")}
        self._environment = {
            **plain,
            "FACEPASS_DATA_DIR": str(self.data),
            "FACEPASS_MODELS__DIR": str(models),
            "FACEPASS_LOG_LEVEL": "debug",
            "FACEPASS_LOG_FORMAT": "json",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._postgres = EmbeddedPostgres(self.data / "postgres", linger=0.2)
        self.url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._postgres.stop()
        ended = self._postgres.wait_ended(60.0)
        self._folder.cleanup()
        assert ended, "the private PostgreSQL has not ended"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def begin(self) -> None:
        """Start the process, and wait for nothing."""
        with self.logs.open("ab") as out:
            self._seen = self.logs.stat().st_size
            self._process = subprocess.Popen(
                [self.program, "serve", "--port", "0"],
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._folder.name,
            )

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        """Wait until it listens."""
        assert self._process is not None
        deadline = time.monotonic() + _PATIENCE
        while True:
            said = self.logs.read_bytes()[self._seen :].decode()
            if found := _LISTENS.search(said):
                self.url = found[1]
                return
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would: no handler runs."""
        self._end(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int | None:
        """End it as an operator would, and return its status; None where it does not run."""
        return self._end(how)

    def command(self, *arguments: str) -> str:
        """Run another `facepass` beside it and return what it prints."""
        done = self.result(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def result(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run another `facepass` beside it, with settings of its own, to whatever end."""
        return subprocess.run(
            [self.program, *arguments],
            env={**self._environment, **settings},
            cwd=self._folder.name,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )

    def new_key(self, workspace: str = "default", *scopes: str) -> str:
        """Make a workspace where it is missing, and an API key in it; without scopes, one that may do everything."""
        wanted = scopes or ("enrol", "verify", "search", "liveness", "read", "manage", "embed")
        arguments = [part for scope in wanted for part in ("--scope", scope)]
        made = json.loads(self.command("bootstrap", "--json", "--new-key", "--workspace", workspace, *arguments))
        return str(made["api_key"])

    def client(self, key: str | None) -> httpx.Client:
        """Return a client of the API that sends `key`."""
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers={} if key is None else {"X-API-Key": key}, timeout=60.0
        )

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Ask its database, past the service."""
        address = make_url(self._postgres.start())

        async def ask() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(
                address.set(drivername="postgresql").render_as_string(hide_password=False)
            )
            try:
                return [dict(row) for row in await connection.fetch(query, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def stored(self) -> dict[str, int]:
        """Count what is kept of people: rows by table, and files of the blob store."""
        (counts,) = self.rows(
            'SELECT (SELECT count(*) FROM people) AS people, (SELECT count(*) FROM "references") AS references,'
            " (SELECT count(*) FROM data_keys) AS data_keys, (SELECT count(*) FROM answers) AS answers,"
            " (SELECT count(*) FROM galleries) AS galleries"
        )
        return {**counts, "files": len(self.files())}

    def files(self) -> list[Path]:
        """Every file of the blob store, half-written ones too."""
        return [path for path in (self.data / "blobs").rglob("*") if path.is_file()]

    def peak_memory(self) -> int:
        """Bytes that the process held at most so far (`VmHWM` of Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def _end(self, how: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            os.kill(process.pid, how)
        try:
            return process.wait(60.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
