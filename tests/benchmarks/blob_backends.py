"""The same images in each blob store."""

import asyncio
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from adapters.blob_store.filesystem import FilesystemBlobStore
from adapters.blob_store.s3 import open_s3_blob_store
from application.ports.blob_store import BlobStore, blob_key
from tests.benchmarks.measured import Figure, Measured, Part, Progress, megabytes
from tests.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server

SIZES: Final = {"small": (30_000, 300), "large": (2_000_000, 30)}
"""Bytes, and how many: a photograph of LFW is the one, a telephone's the other."""
ROUNDS: Final = 6

_COUNTS: Final = {f"{what}_{name}": count for name, (_, count) in SIZES.items() for what in ("put", "get")}

FIGURES: Final = (
    Figure("put_small", "images of 30 kB put/s", "{:,.0f}"),
    Figure("get_small", "images of 30 kB read/s", "{:,.0f}"),
    Figure("put_large", "images of 2 MB put/s", "{:,.0f}"),
    Figure("get_large", "images of 2 MB read/s", "{:,.0f}"),
    Figure("disk", "on disk", "{:.1f} MB"),
)


def blob_stores(progress: Progress) -> Part:
    """Each image after the one before, which is what a single call waits for; the stores in turn."""
    return Part(port="blob store", figures=FIGURES, backends=asyncio.run(_measured(progress)))


async def _measured(progress: Progress) -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="facepass-benchmark-") as name, S3Server() as server:
        async with open_s3_blob_store(
            bucket=server.new_bucket(),
            endpoint=server.url,
            region=REGION,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
        ) as s3:
            stores: list[BlobStore] = [FilesystemBlobStore(Path(name)), s3]
            taken: list[dict[str, float]] = [defaultdict(float), defaultdict(float)]
            for number in range(ROUNDS):
                progress.of("blob stores")(f"round {number + 1} of {ROUNDS}")
                for store, so_far in zip(stores, taken, strict=True):
                    for figure, seconds in (await _seconds(store, number)).items():
                        so_far[figure] += seconds
        filesystem, moto = ({figure: _COUNTS[figure] / seconds for figure, seconds in one.items()} for one in taken)
        filesystem["disk"] = megabytes(Path(name))
    return [
        Measured(
            backend="filesystem", figures=filesystem, note="the default; each image made durable before it counts"
        ),
        Measured(
            backend="s3, moto's server",
            figures=moto,
            note="moto over HTTP on this machine: Python, which checks signatures and keeps everything in memory, "
            "durable or not. It says nothing of Amazon's or of MinIO",
        ),
    ]


async def _seconds(store: BlobStore, number: int) -> dict[str, float]:
    """Put and read one round's images of either size."""
    figures: dict[str, float] = {}
    for name, (size, count) in SIZES.items():
        content = os.urandom(size)
        keys = [blob_key("benchmark", f"{name}-{number}-{one}") for one in range(count // ROUNDS)]
        began = time.perf_counter()
        for key in keys:
            await store.put(key, content)
        put = time.perf_counter()
        for key in keys:
            assert await store.get(key) == content
        figures |= {f"put_{name}": put - began, f"get_{name}": time.perf_counter() - put}
    return figures
