"""A real S3 server for tests: moto in a process of its own, behind a door that checks signatures as S3 does."""

import hashlib
import hmac
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, quote
from uuid import uuid4
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

ACCESS_KEY: Final = "facepass-tests"
READER_KEY: Final = "facepass-reader"
"""May list and read, and nothing else."""
SECRET_KEY: Final = "not-a-secret-but-looks-like-one"
REGION: Final = "us-east-1"

_PATIENCE: Final = 60.0
_LISTENS: Final = re.compile(r"listens on (http://\S+)")
_SIGNATURE: Final = re.compile(r"AWS4-HMAC-SHA256 Credential=(\S+?), ?SignedHeaders=(\S+?), ?Signature=(\w+)")


class S3Server:
    """S3 on a free port until the block ends; empty at first, and kept in memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="facepass-s3-")
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        said = Path(self._folder.name) / "said.log"
        with said.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__], stdout=out, stderr=subprocess.STDOUT, cwd=self._folder.name
            )
        try:
            deadline = time.monotonic() + _PATIENCE
            while not (found := _LISTENS.search(said.read_text())):
                assert self._process.poll() is None, said.read_text()
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        self.url = found[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    def kill(self) -> None:
        """End it as a power cut would; what it kept is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Let it take connections, and answer none."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def client(self) -> BaseClient:
        """Return a client of its own, past the project's code; it does not wait for loops."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}),
        )

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"bucket-{uuid4().hex}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name


class SignatureDoor:
    """Lets through what is signed, by a known key, for now: moto itself takes everything from everybody.

    Written after "Signature Version 4" of the Amazon S3 API reference, without the SDK, so that the two check each
    other.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refused = _refused(environ)
        if refused is None:
            return self._application(environ, start_response)
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{refused}</Code><Message>No.</Message></Error>'
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body.encode()]


def _refused(environ: WSGIEnvironment) -> str | None:
    """Return the code with which S3 refuses a request, None where it is good."""
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    if "X-Amz-Signature" in query:
        credential, names, signature = (query[f"X-Amz-{name}"] for name in ("Credential", "SignedHeaders", "Signature"))
        stamp, payload, good_for = query["X-Amz-Date"], "UNSIGNED-PAYLOAD", int(query["X-Amz-Expires"])
    elif found := _SIGNATURE.fullmatch(environ.get("HTTP_AUTHORIZATION", "")):
        credential, names, signature = found.groups()
        stamp, payload, good_for = environ["HTTP_X_AMZ_DATE"], environ["HTTP_X_AMZ_CONTENT_SHA256"], 900
    else:
        return "AccessDenied"
    key, _, scope = credential.partition("/")
    if key not in {ACCESS_KEY, READER_KEY}:
        return "InvalidAccessKeyId"
    if not hmac.compare_digest(signature, _signed(environ, scope, stamp, names, payload)):
        return "SignatureDoesNotMatch"
    signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > signed_at + timedelta(seconds=good_for):
        return "AccessDenied"
    if key == READER_KEY and environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
        return "AccessDenied"
    return None


def _signed(environ: WSGIEnvironment, scope: str, stamp: str, names: str, payload: str) -> str:
    path, _, query = environ["REQUEST_URI"].partition("?")
    pairs = sorted(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name != "X-Amz-Signature"
    )
    headers = [f"{name}:{' '.join(_header(environ, name).split())}\n" for name in names.split(";")]
    canonical = "\n".join([environ["REQUEST_METHOD"], path, "&".join(pairs), "".join(headers), names, payload])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for part in [*scope.split("/"), text]:
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _header(environ: WSGIEnvironment, name: str) -> str:
    bare = name.upper().replace("-", "_")
    return str(environ[bare if bare in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{bare}"])


def main() -> None:
    """Serve until somebody ends the process."""
    door = SignatureDoor(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, door, threaded=True, request_handler=MotoRequestHandler)
    print(f"listens on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
