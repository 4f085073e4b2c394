"""Eight photographs of 36 megapixels at once."""

import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

from tests.benchmarks.bench import Bench
from tests.benchmarks.load import load_process, loaded, post_image
from tests.benchmarks.rows import Row
from tests.benchmarks.throwaway import memory, peak_memory, throwaway

SIDE = 6_000
AT_ONCE = 8
ROUNDS = 3
_EVERY = 0.02


def megapixels(bench: Bench) -> list[Row]:
    bench.tell("making photographs")
    kinds = _encoded()
    answers: Counter[int] = Counter()
    slowest: dict[str, float] = {}
    with throwaway(bench.models) as service, load_process() as process:
        key = service.bootstrapped()["api_key"]
        with service.serving() as server, _sampled(server.pid) as samples:
            for number in range(ROUNDS):
                for kind, content in kinds.items():
                    bench.tell(f"round {number + 1} of {ROUNDS}: {kind}")
                    requests = [post_image("/api/v1/faces/detect", key, content, {})] * AT_ONCE
                    load = process.submit(loaded, server.address, requests, clients=AT_ONCE).result()
                    answers += load.statuses
                    slowest[kind] = max(slowest.get(kind, 0.0), *load.latencies)
            peak, after = max(*samples, peak_memory(server.pid)), memory(server.pid)
    good = {200, 503}
    shown = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
    sizes = ", ".join(f"{kind} {len(content) / 2**20:.1f} MiB" for kind, content in kinds.items())
    times = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in slowest.items())
    return [
        Row(
            name="megapixels.peak",
            what=f"{AT_ONCE} photographs of {SIDE**2 / 1e6:.0f} megapixels at once: the server's peak memory",
            value=peak / 1e9,
            shown="{:.2f} GB",
            note=f"{ROUNDS} rounds of {sizes}; {after / 1e9:.2f} GB afterwards; the slowest answer: {times}",
        ),
        Row(
            name="megapixels.other_answers",
            what="the same: answers other than 200 and 503",
            value=float(sum(count for status, count in answers.items() if status not in good)),
            shown="{:.0f}",
            note=shown,
        ),
    ]


def _encoded() -> dict[str, bytes]:
    """A real face on a large plain picture, in the three ways that cost decoders most."""
    photo = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]  # scikit-image has no types here
    whole = Image.fromarray(np.full((SIDE, SIDE, 3), 128, np.uint8))
    whole.paste(photo.resize((1500, 1500)), (2000, 1500))
    ways: dict[str, dict[str, Any]] = {
        "JPEG": {"format": "JPEG"},
        "progressive JPEG": {"format": "JPEG", "progressive": True},
        "PNG": {"format": "PNG"},
    }
    encoded = {}
    for kind, options in ways.items():
        stream = io.BytesIO()
        whole.save(stream, **options)
        encoded[kind] = stream.getvalue()
    return encoded


@contextmanager
def _sampled(pid: int) -> Iterator[list[int]]:
    """Look at a process's memory all the time."""
    samples: list[int] = [memory(pid)]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_EVERY):
            samples.append(memory(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
