import asyncio
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest

from entrypoints.settings import Settings
from tests.e2e.in_process import InProcess
from tests.security.house import app_of, key_of, with_http
from tests.security.listening import listening

BODY = b'{"name": "smuggled"}'


@pytest.fixture(scope="module")
async def url(house: InProcess, house_settings: Settings) -> AsyncIterator[str]:
    settings = with_http(house_settings, body_seconds=1.0, body_idle_seconds=0.3)
    async with listening(app_of(house, settings), settings) as address:
        yield address


async def heard(url: str, *parts: bytes, pause: float = 0.0, patience: float = 5.0) -> bytes:
    """Send parts with a pause before each further one; return what comes back until the connection ends, or nothing
    more comes for a while."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    answer = bytearray()

    async def read() -> None:
        while more := await reader.read(65536):
            answer.extend(more)

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(patience):
            for number, part in enumerate(parts):
                if number:
                    await asyncio.sleep(pause)
                writer.write(part)
                await writer.drain()
                if reading.done():
                    break
            await reading
    except (TimeoutError, ConnectionError):
        reading.cancel()
    finally:
        writer.close()
    return bytes(answer)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def post(key: str, *headers: bytes, path: bytes = b"/api/v1/galleries") -> bytes:
    head = [
        b"POST " + path + b" HTTP/1.1",
        b"Host: x",
        b"X-API-Key: " + key.encode(),
        b"Content-Type: application/json",
    ]
    return b"\r\n".join([*head, *headers, b"", b""])


async def names(house: InProcess) -> set[str]:
    listed = (await house.client.get("/galleries", params={"limit": 100})).json()["items"]
    return {one["name"] for one in listed}


SMUGGLED = b"DELETE /api/v1/galleries/kept HTTP/1.1\r\nHost: x\r\n\r\n"


class TestSmuggling:
    """A proxy and the service that disagree where a request ends: what they could read apart is refused."""

    @pytest.mark.parametrize(
        "headers",
        [
            (b"Content-Length: 20", b"Content-Length: 5"),
            (b"Content-Length: 5", b"Content-Length: 20"),
            (b"Content-Length: 20, 5",),
            (b"Content-Length: 20", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Content-Length: 20"),
            (b"Content-Length: -1",),
            (b"Content-Length: +20",),
            (b"Content-Length: 2 0",),
            (b"Content-Length: 0x14",),
            (b"Content-Length: 20.0",),
            (b"Content-Length: 99999999999999999999999",),
            (b"Content-Length : 20",),
            (b"Content-Length: 20", b" folded: on"),
            (b"X: a\nContent-Length: 20",),
            (b"X: a\rContent-Length: 20",),
            (b"X: a\x00b", b"Content-Length: 20"),
            (b"Transfer-Encoding: xchunked",),
            (b"Transfer-Encoding: chunked, identity",),
            (b"Transfer-Encoding : chunked",),
        ],
    )
    async def test_an_unclear_length_is_refused_and_the_connection_closed(
        self, url: str, house: InProcess, headers: tuple[bytes, ...]
    ) -> None:
        before = await names(house)
        answer = await heard(url, post(key_of(house), *headers) + BODY + SMUGGLED)
        assert len(statuses(answer)) <= 1, answer
        assert all(400 <= status < 500 for status in statuses(answer)), answer
        assert await names(house) == before

    async def test_a_request_inside_a_body_stays_a_body(self, url: str, house: InProcess) -> None:
        inner = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        length = b"Content-Length: %d" % len(inner)
        answer = await heard(url, post(key_of(house), length, b"Connection: close") + inner)
        assert statuses(answer) == [422]

    @pytest.mark.parametrize(
        "chunks",
        [
            b"5;x=\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"ffffffffffffffffff\r\n",
        ],
    )
    async def test_a_chunk_of_unclear_length_is_refused(self, url: str, house: InProcess, chunks: bytes) -> None:
        answer = await heard(url, post(key_of(house), b"Transfer-Encoding: chunked") + chunks + SMUGGLED)
        assert all(400 <= status < 500 for status in statuses(answer)), answer
        assert len(statuses(answer)) <= 1

    async def test_two_plain_requests_on_one_connection_are_two(self, url: str) -> None:
        one = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert statuses(await heard(url, one + last)) == [200, 200]


class TestSlowBodies:
    async def test_a_body_that_stops_is_answered_408_and_the_connection_closed(
        self, url: str, house: InProcess
    ) -> None:
        answer = await heard(url, post(key_of(house), b"Content-Length: 20") + BODY[:5], patience=10.0)
        assert statuses(answer) == [408]
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        assert b"x-content-type-options: nosniff" in head
        assert json.loads(body)["code"] == "request_timeout"

    async def test_a_body_that_drips_is_cut_off(self, url: str, house: InProcess) -> None:
        drops = [b" "] * 40
        answer = await heard(url, post(key_of(house), b"Content-Length: 60"), *drops, pause=0.1, patience=10.0)
        assert statuses(answer) == [408]

    async def test_a_body_with_pauses_is_taken(self, url: str, house: InProcess) -> None:
        name = b'{"name": "paused"}  '
        answer = await heard(
            url, post(key_of(house), b"Content-Length: 20", b"Connection: close") + name[:5], name[5:], pause=0.1
        )
        assert statuses(answer) == [201]

    async def test_who_is_refused_waits_for_no_body(self, url: str) -> None:
        answer = await heard(url, post("fp_forged", b"Content-Length: 20"), patience=1.0)
        assert statuses(answer) == [401]


class TestHeaders:
    @pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nX: 1", "\u2028x", "a" * 65, "<script>", "%0d%0aX:1"])
    async def test_a_request_id_that_is_no_plain_one_is_not_taken(self, house: InProcess, value: str) -> None:
        answer = await house.client.get("/galleries", headers=[(b"X-Request-Id", value.encode())])
        assert answer.headers["X-Request-Id"] != value
        assert len(answer.headers["X-Request-Id"]) == 32
        assert "Set-Cookie" not in answer.headers

    @pytest.mark.parametrize(
        "name", ["If-Match", "X-Workspace-Id", "Idempotency-Key", "Prefer", "Last-Event-ID", "Origin"]
    )
    @pytest.mark.parametrize(
        "value", [b"a\r\nX-Injected: 1", b'"1"\nX-Injected: 1', b"\xff\xfe", b"'; DROP TABLE people;--"]
    )
    async def test_no_header_gets_into_an_answer(self, house: InProcess, name: str, value: bytes) -> None:
        for method, path in (
            ("GET", "/galleries"),
            ("PATCH", "/galleries/default"),
            ("POST", "/galleries/default/people"),
        ):
            answer = await house.client.request(method, path, headers=[(name.encode(), value)], json={})
            assert answer.status_code < 500
            assert "X-Injected" not in answer.headers
            assert all("\n" not in one for one in answer.headers.values())

    async def test_a_header_with_a_line_end_never_reaches_the_service(self, url: str) -> None:
        head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\rX-Injected: 1\r\nConnection: close\r\n\r\n"
        assert statuses(await heard(url, head)) == [400]


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "/docs-assets/../pyproject.toml",
            "/docs-assets/..%2f..%2fpyproject.toml",
            "/docs-assets/%2e%2e/%2e%2e/etc/passwd",
            "/docs-assets/....//....//etc/passwd",
            "/docs-assets//etc/passwd",
            "/docs-assets/%2fetc%2fpasswd",
            "/docs-assets/..\\..\\etc\\passwd",
            "/docs-assets/swagger-ui.css%00.png",
            "/docs-assets/../__init__.py",
            "/docs-assets/%252e%252e/__init__.py",
        ],
    )
    async def test_no_file_outside_the_pages_own_is_served(self, url: str, path: str) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        answer = await heard(url, head)
        assert statuses(answer)[0] in {400, 404, 405}
        assert b"root:" not in answer
        assert b"[project]" not in answer

    @pytest.mark.parametrize(
        "name", ["../default", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "%ff", "default%2f..", "%0d%0aX:1"]
    )
    async def test_a_gallery_of_such_a_name_is_not_found(self, url: str, house: InProcess, name: str) -> None:
        async with httpx.AsyncClient(headers={"X-API-Key": key_of(house)}) as client:
            for path in ("", "/people", "/references"):
                answer = await client.get(f"{url}/api/v1/galleries/{name}{path}")
                assert answer.status_code in {400, 404, 405, 422}, answer.text
                assert "X" not in [header.upper() for header in answer.headers]
