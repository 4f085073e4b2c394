"""A load generator that leaves the processors to the server: blocking sockets, bytes made beforehand."""

import itertools
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final, NamedTuple, Self

_BOUNDARY: Final = "facepass-benchmark"
_PATIENCE: Final = 120.0


class Address(NamedTuple):
    host: str
    port: int


class Response(NamedTuple):
    status: int
    body: bytes
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a run gave."""

    statuses: Counter[int]
    latencies: list[float]
    """Seconds a request, in the order of their ends."""
    seconds: float
    processor_seconds: float
    """What the load generator itself took."""
    failure: bytes = b""
    """The body of the first answer that was no success."""

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 300)


class Connection:
    """Keep-alive HTTP/1.1, and no more of it than the server's answers need."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, timeout=_PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, request: bytes) -> Response:
        began = time.perf_counter()
        self._socket.sendall(request)
        received = self._more(b"")
        while (end := received.find(b"\r\n\r\n")) < 0:
            received = self._more(received)
        head, start = received[:end].lower(), end + 4
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(received) < start + length:
            received = self._more(received)
        return Response(int(head[9:12]), received[start:], time.perf_counter() - began)

    def _more(self, received: bytes) -> bytes:
        part = self._socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        return received + part


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: benchmark\r\n\r\n".encode()


def post_image(path: str, key: str, image: bytes, fields: Mapping[str, str]) -> bytes:
    """Return a whole multipart request."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode(),
        image,
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
    ]
    body = b"".join(parts)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: benchmark\r\nX-API-Key: {key}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(slots=True)
class _Run:
    address: Address
    requests: Sequence[bytes]
    turn: Iterator[int]
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[bytes] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)

    def client(self) -> None:
        try:
            with Connection(self.address) as connection:
                while (index := next(self.turn)) < len(self.requests):
                    response = connection.call(self.requests[index])
                    self.latencies.append(response.seconds)
                    self.statuses[response.status] += 1
                    if response.status >= 300:
                        self.failures.append(response.body)
        except Exception as error:  # noqa: BLE001 - told to whoever asked for the run
            self.broken.append(error)


def loaded(address: Address, requests: Sequence[bytes], *, clients: int) -> Load:
    """Send every request once, in turn, over as many connections as there are clients."""
    run = _Run(address, requests, itertools.count())
    threads = [threading.Thread(target=run.client) for _ in range(clients)]
    processor, began = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if run.broken:
        raise run.broken[0]
    return Load(
        statuses=run.statuses,
        latencies=run.latencies,
        seconds=seconds,
        processor_seconds=time.process_time() - processor,
        failure=run.failures[0] if run.failures else b"",
    )


@contextmanager
def load_process() -> Iterator[ProcessPoolExecutor]:
    """One process beside this one to run `loaded` in, warmed up."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(time.time).result()
        yield process


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share lies below or at, by nearest rank."""
    return sorted(values)[max(0, -(-round(share * 1000) * len(values) // 1000) - 1)]


def spread(values: Sequence[float], shown: str = "{:.2f}") -> str:
    """The range of what was measured several times."""
    return (
        f"{shown.format(min(values))} to {shown.format(max(values))}, median {shown.format(statistics.median(values))}"
    )
