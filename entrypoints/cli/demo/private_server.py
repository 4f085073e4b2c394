"""A real `facepass serve` in a process of its own, on a folder that goes with it; and a client for it."""

import asyncio
import base64
import http
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from entrypoints.cli.session import CommandFailed
from entrypoints.settings import PREFIX, Settings, process_environment, read_settings
from entrypoints.wiring.database_commands import ended

_FACEPASS = (sys.executable, "-P", "-m", "entrypoints.cli")
_PATIENCE = 120.0
"""Seconds for a start, which makes a database."""

_FAREWELL = 30.0
_POLL = 0.05
_TAIL = 2000
_OK = 300

Answer = dict[str, Any]


class Refused(CommandFailed):
    """An image that was refused, with the code of the reason."""

    def __init__(self, code: str, detail: str) -> None:
        """Take both as the service says them."""
        super().__init__(f"{detail} ({code})")
        self.code = code


class Service:
    """The service as a client sees it. Every method raises `CommandFailed` where it answers otherwise than well."""

    def __init__(self, address: str, environment: Mapping[str, str], folder: Path) -> None:
        """Take the address that the service printed."""
        self.address = address
        self.key = ""
        self._environment = environment
        self._folder = folder

    def bootstrap(self) -> None:
        """Make the workspace and the key that all other calls carry, by the command that an operator uses."""
        done = subprocess.run(  # noqa: S603 - this very program
            [*_FACEPASS, "bootstrap", "--json"],
            env=dict(self._environment),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(f"facepass bootstrap failed: {done.stderr.strip()[-_TAIL:]}")
        self.key = json.loads(done.stdout)["api_key"]

    def detect(self, image: bytes) -> Answer:
        """Find every face."""
        return self._post("/faces/detect", {"image": _encoded(image)})

    def enrol(self, external_id: str, images: Sequence[bytes]) -> Answer:
        """Enrol images of a person. Raises `Refused` where none is good enough."""
        body = {"external_id": external_id, "images": [_encoded(image) for image in images]}
        return self._post("/galleries/default/references", body)

    def search(self, image: bytes, *, faces: str = "largest") -> Answer:
        """Find out who it is."""
        return self._post("/search", {"image": _encoded(image), "faces": faces})

    def verify(self, image: bytes, external_id: str) -> Answer:
        """Ask whether it is this person."""
        return self._post("/verify", {"image": _encoded(image), "external_id": external_id})

    def ready(self) -> bool:
        """Whether it can do its work."""
        status, _ = self._call("GET", "/health/ready", None)
        return status < _OK

    def _post(self, path: str, body: Answer) -> Answer:
        status, answer = self._call("POST", f"/api/v1{path}", body)
        if status == http.HTTPStatus.UNPROCESSABLE_ENTITY:
            raise Refused(answer["code"], answer["detail"])
        if status >= _OK:
            raise CommandFailed(f"POST /api/v1{path} answered {status}: {answer.get('detail')} ({answer.get('code')})")
        return answer

    def _call(self, method: str, path: str, body: Answer | None) -> tuple[int, Answer]:
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"} if body else {}
        # One for each call: a kept connection is hung up by the server while the demo draws or waits.
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=_PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            answer: Answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CommandFailed(f"the service does not answer: {error}") from error
        finally:
            connection.close()
        return response.status, answer


@contextmanager
def throw_away_service(models: Settings) -> Iterator[tuple[Service, "subprocess.Popen[str]"]]:
    """Run a service until the block ends, then remove everything of it, however the block ends.

    Args:
        models: what is set for model packs counts here too; nothing else does.
    """
    folder = Path(tempfile.mkdtemp(prefix="facepass-demo-"))
    # As root the private PostgreSQL runs under another account, which must get to its folder.
    folder.chmod(0o711)
    own = {
        "FACEPASS_DATA_DIR": str(folder / "data"),
        "FACEPASS_MASTER_KEY_FILE": str(folder / "master.key"),
        "FACEPASS_MODELS__DIR": str(models.models_path),
        "FACEPASS_LOG_LEVEL": "warning",
        "FACEPASS_LOG_FORMAT": "json",
    }
    environment = {
        **{name: value for name, value in process_environment().items() if not name.startswith(PREFIX)},
        **own,
    }
    log = folder / "service.log"
    try:
        with log.open("w") as errors, _process(environment, folder, errors) as process:
            yield _reached(process, environment, folder, log), process
    finally:
        # Its files are in use until the private PostgreSQL has ended, some seconds after its last user.
        asyncio.run(ended(read_settings(own, dotenv=None), timeout=_FAREWELL))
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _process(environment: Mapping[str, str], folder: Path, errors: Any) -> Iterator["subprocess.Popen[str]"]:  # noqa: ANN401 - an open file
    # In a session of its own, Ctrl-C reaches this process alone, which then ends that one in order.
    process = subprocess.Popen(  # noqa: S603 - this very program
        [*_FACEPASS, "serve", "--port", "0"],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _reached(process: "subprocess.Popen[str]", environment: Mapping[str, str], folder: Path, log: Path) -> Service:
    """Wait until the service says where it listens, and until it is ready. Raises `CommandFailed` with its log."""
    line = "" if process.stdout is None else process.stdout.readline()
    address = next((word for word in line.split() if word.startswith("http://")), None)
    if address is None:
        raise CommandFailed(f"the service did not start: {log.read_text(errors='replace').strip()[-_TAIL:]}")
    service = Service(address, environment, folder)
    deadline = time.monotonic() + _PATIENCE
    while not service.ready():
        if time.monotonic() > deadline or process.poll() is not None:
            raise CommandFailed(f"the service was not ready: {log.read_text(errors='replace').strip()[-_TAIL:]}")
        time.sleep(_POLL)
    return service


def _encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()
