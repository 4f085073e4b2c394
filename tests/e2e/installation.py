import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self
from uuid import UUID, uuid4

import httpx
from dishka import Scope

from application.ports.transaction import Transaction
from application.use_cases.jobs.start_job import StartJob
from domain.workspace import WorkspaceId
from entrypoints.settings import read_settings
from entrypoints.wiring.startup import opened
from tests.conftest import beside, drop_database, end_connections, execute
from tests.e2e.own_worker import OWN
from tests.redis_server import RedisServer, redis_server

CHECKOUT: Final = Path(__file__).parents[2]
FACEPASS: Final = (str(Path(sys.executable).with_name("facepass")),)
OWN_WORKER: Final = (sys.executable, "-m", "tests.e2e.own_worker")
"""As `facepass worker`, with a handler of the tests' own and leases of seconds."""

PATIENCE: Final = 90.0
LISTENS: Final = r"listens on (http://\S+)"
WORKS: Final = r"worker_ready"


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not await so():  # noqa: ASYNC110 - what is waited for happens in other processes, which have no event here
            await asyncio.sleep(0.05)


class Process:
    """One of ours, which runs until it is ended."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environment = environment
        self._log = log
        self._seen = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """What it has logged since it began the last time."""
        return self._log.read_bytes()[self._seen :].decode()

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        with self._log.open("ab") as out:
            self._seen = self._log.stat().st_size
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=out, stderr=subprocess.STDOUT, cwd=CHECKOUT
            )

    async def says(self, what: str) -> str:
        """Wait until it has, and return the first group of the match."""
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(what, self.said())):
                assert self.running, self.said()
                await asyncio.sleep(0.05)
        return found.group(found.lastindex or 0)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """End it, and return its status; None where it did not run."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            os.kill(process.pid, how)
        try:
            return await asyncio.to_thread(process.wait, PATIENCE)
        finally:
            process.kill()
            process.wait()


class Installation:
    """Nodes and workers over one PostgreSQL and one Redis, each a process of its own."""

    def __init__(
        self, redis: RedisServer, environment: Mapping[str, str], folder: Path, index: tuple[str, str]
    ) -> None:
        self.redis = redis
        self.environment = environment
        self.steps = folder / "steps"
        """Where `tests.e2e.own_worker` leaves what it did."""
        self._postgres, self._index = index
        serve = (*FACEPASS, "serve", "--port", "0")
        self.nodes = [Process(serve, environment, folder / f"node-{number}.log") for number in (1, 2)]
        self.workers = [
            Process((*FACEPASS, "worker"), environment, folder / f"worker-{number}.log") for number in (1, 2)
        ]
        self.own_workers = [Process(OWN_WORKER, environment, folder / f"own-worker-{number}.log") for number in (1, 2)]
        self.clients: list[httpx.AsyncClient] = []
        """One for each node, with a key that may do everything."""
        self.workspace = WorkspaceId(UUID(int=0))

    @classmethod
    @asynccontextmanager
    async def running(cls, postgres: str, template: str, models: Path, plain: Mapping[str, str]) -> AsyncIterator[Self]:
        """Run the nodes for the block, over databases of their own."""
        record, index = (f"{name}_{uuid4().hex}" for name in ("record", "vectors"))
        await execute(postgres, f"CREATE DATABASE {record} TEMPLATE {template}")
        await execute(postgres, f"CREATE DATABASE {index}")
        with redis_server() as redis, tempfile.TemporaryDirectory(prefix="facepass-e2e-") as folder:
            environment = {
                **{name: value for name, value in plain.items() if not name.startswith("FACEPASS_")},
                "FACEPASS_DATA_DIR": f"{folder}/data",
                "FACEPASS_MODELS__DIR": str(models),
                "FACEPASS_LOG_LEVEL": "debug",
                "FACEPASS_LOG_FORMAT": "json",
                "FACEPASS_DATABASE__URL": beside(postgres, record),
                "FACEPASS_DATABASE__POOL_SIZE": "2",
                "FACEPASS_VECTOR_INDEX__URL": beside(postgres, index),
                "FACEPASS_JOB_QUEUE__BACKEND": "arq",
                "FACEPASS_JOB_QUEUE__URL": redis.url,
                "FACEPASS_JOB_QUEUE__UPKEEP_SECONDS": "1",
                "FACEPASS_CACHE__BACKEND": "redis",
                "FACEPASS_CACHE__URL": redis.url,
            }
            running = cls(redis, environment, Path(folder), (postgres, index))
            try:
                await running._begin()
                yield running
            finally:
                for client in running.clients:
                    await client.aclose()
                for process in (*running.nodes, *running.workers, *running.own_workers):
                    await process.end(signal.SIGKILL)
        await drop_database(postgres, record)
        await drop_database(postgres, index)

    async def _begin(self) -> None:
        for node in self.nodes:
            node.begin()
        made = await self.result("bootstrap", "--json", "--new-key")
        assert made.returncode == 0, made.stderr
        told = json.loads(made.stdout)
        self.workspace = WorkspaceId(UUID(told["workspace_id"]))
        for node in self.nodes:
            url = await node.says(LISTENS)
            self.clients.append(
                httpx.AsyncClient(base_url=f"{url}/api/v1", headers={"X-API-Key": told["api_key"]}, timeout=60.0)
            )

    async def result(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another `facepass` beside it, to whatever end."""
        return await asyncio.to_thread(
            subprocess.run,
            [*FACEPASS, *arguments],
            env=self.environment,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    async def start_job(self, **parameters: object) -> str:
        """Ask for a job of the tests' own, and return its id."""
        async with (
            opened(read_settings(self.environment, dotenv=None)) as container,
            container(scope=Scope.REQUEST) as unit,
        ):
            start = await unit.get(StartJob)
            job = await start(workspace=self.workspace, kind=OWN, parameters=parameters)
            await (await unit.get(Transaction)).commit()
            await start.after_commit(job)
        return str(job.id)

    @asynccontextmanager
    async def without_index(self) -> AsyncIterator[None]:
        """Let nobody into the database of the vector index inside the block."""
        await execute(self._postgres, f"ALTER DATABASE {self._index} ALLOW_CONNECTIONS false")
        await end_connections(self._postgres, self._index)
        try:
            yield
        finally:
            await execute(self._postgres, f"ALTER DATABASE {self._index} ALLOW_CONNECTIONS true")
