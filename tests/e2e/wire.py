import base64
import json
import re
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx

MEDIA_TYPE = "application/problem+json"
_LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|SELECT |INSERT |sqlalchemy|asyncpg|litestar|msgspec|/tmp/|/root/"
)


def is_problem(answer: httpx.Response, status: int, code: str, *, field: str | None = None) -> dict[str, Any]:
    """Hold an answer to RFC 9457 and to what we promise beyond it, and return the document."""
    assert answer.headers["Content-Type"] == MEDIA_TYPE, answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert problem["status"] == status
    assert problem["type"] == f"urn:facepass:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.path
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert not _LEAKS.search(answer.text), answer.text
    if field is not None:
        assert [one["field"] for one in problem["errors"]] == [field]
        assert all(one["code"] and one["message"] for one in problem["errors"])
    return problem


def encoded(image: bytes) -> str:
    """Return an image as JSON carries it."""
    return base64.b64encode(image).decode()


def form(parts: Iterable[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """Return a multipart body out of Content-Disposition parameters and contents, byte by byte as given."""
    body = b"".join(
        b"--edge\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return body + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


def spoken(url: str, head: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes that no decent client sends, then nothing more; return the answer's status and document."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=60.0) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        try:
            connection.sendall(body)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # answered before it was all sent: the answer is there to be read
        heard = b""
        try:
            while part := connection.recv(65536):
                heard += part
        except OSError:
            pass
    top, _, rest = heard.partition(b"\r\n\r\n")
    status = int(top.split(b" ")[1]) if top else 0
    return status, json.loads(rest) if rest.startswith(b"{") else {}
