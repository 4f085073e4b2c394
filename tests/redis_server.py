"""A real `redis-server` on a free port, for whoever tests against Redis."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import redis

MISSING = (
    "redis-server is not installed, and the Redis backends are tested against a real one: "
    "sudo apt-get install redis-server (Debian, Ubuntu), brew install redis (macOS)"
)


class RedisServer:
    """Keeps nothing on the disk; may be killed, stopped, and started again on the same port."""

    def __init__(self, folder: Path, *, arguments: Sequence[str] = (), tls: tuple[Path, Path] | None = None) -> None:
        """Take redis-server's own arguments, and for TLS beside the plain port a certificate and its key."""
        self.port = free_port()
        self._tls_port = free_port()
        self._folder = folder
        self._arguments = list(arguments)
        if tls is not None:
            certificate, key = map(str, tls)
            self._arguments += ["--tls-port", str(self._tls_port), "--tls-auth-clients", "no"]
            self._arguments += [
                "--tls-cert-file",
                certificate,
                "--tls-key-file",
                key,
                "--tls-ca-cert-file",
                certificate,
            ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def tls_url(self) -> str:
        return f"rediss://localhost:{self._tls_port}/0"

    def start(self) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None, MISSING
        options = ("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(
            [binary, *options, "--dir", str(self._folder), "--logfile", "redis.log", *self._arguments]
        )
        self._wait_ready()

    def kill(self) -> None:
        """End it as a crash does; without effect where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Crash and come back on the same port, empty."""
        self.kill()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang inside the block: connections are taken, and nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def _wait_ready(self) -> None:
        assert self._process is not None
        until = monotonic() + 20.0
        while monotonic() < until:
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            sleep(0.01)
        raise AssertionError("redis-server did not open its port within 20 seconds")


@contextmanager
def redis_server(*arguments: str, tls: tuple[Path, Path] | None = None) -> Iterator[RedisServer]:
    """Run one for the block, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="facepass-redis-") as folder:
        server = RedisServer(Path(folder), arguments=arguments, tls=tls)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port
