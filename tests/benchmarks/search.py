"""Search without inference, beside NumPy's exact one on the same vectors."""

import asyncio
import statistics
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from application.use_cases.matching.search_faces import SearchFaces
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from entrypoints.wiring.startup import opened
from tests.benchmarks.bench import NO_PHOTOGRAPHS, Bench
from tests.benchmarks.crowd import SIZES, Crowd
from tests.benchmarks.load import percentile
from tests.benchmarks.rows import Row, unmeasured

NEAREST = 11
"""As many people as a search of the default limit asks the index for."""
WARM_UP = 50
ASKED = 500
"""Searches of the smaller galleries; the largest one is asked for every probe there is."""


@dataclass(frozen=True, slots=True)
class _Timed:
    milliseconds: list[float]
    first: list[ReferenceId | None]
    """The best reference of each search."""


def search(bench: Bench) -> list[Row]:
    if not bench.photos:
        return [unmeasured("search.mate_first", "Search among 100,000", NO_PHOTOGRAPHS)]
    crowd = Crowd.of(bench)
    rows: list[Row] = []
    for size in SIZES:
        probes = crowd.probes.vectors if size == max(SIZES) else crowd.probes.vectors[:ASKED]
        bench.tell(f"{len(probes):,} searches among {size:,}")
        numpy_ms, nearest = _by_numpy(crowd.vectors[:size], probes)
        timed = asyncio.run(_by_service(crowd, size, probes))
        median, p95 = statistics.median(timed.milliseconds), percentile(timed.milliseconds, 0.95)
        exact, exact_p95 = statistics.median(numpy_ms), percentile(numpy_ms, 0.95)
        rows.append(
            Row(
                name=f"search.p95_{size}",
                what=f"Search among {size:,} references without inference, p95",
                value=p95,
                shown="{:.1f} ms",
                note=f"median {median:.2f} ms; NumPy, exact, no record: median {exact:.2f}, p95 {exact_p95:.2f}",
            )
        )
        rows.append(
            Row(
                name=f"search.ratio_{size}",
                what="the same: NumPy's median divided by the service's",
                value=exact / median,
                shown="{:.2f}",
            )
        )
        if size == max(SIZES):
            rows.append(_mates(crowd, nearest, timed))
    return rows


def _by_numpy(vectors: NDArray[np.float32], probes: NDArray[np.float32]) -> tuple[list[float], NDArray[np.int64]]:
    """Milliseconds a probe, and the nearest row of each."""
    taken, nearest = [], np.empty(len(probes), np.int64)
    for index, probe in enumerate(probes):
        began = time.perf_counter()
        similarities = vectors @ probe
        best = np.argpartition(similarities, -NEAREST)[-NEAREST:]
        nearest[index] = best[similarities[best].argmax()]
        taken.append((time.perf_counter() - began) * 1000)
    return taken, nearest


async def _by_service(crowd: Crowd, size: int, probes: NDArray[np.float32]) -> _Timed:
    """Search one after another. The threshold lets everybody through, so that the answers are as long as can be."""
    taken: list[float] = []
    first: list[ReferenceId | None] = []
    async with opened(crowd.service.settings, crowd.provider()) as container:
        find = await container.get(SearchFaces)
        for probe in np.concatenate([probes[:WARM_UP], probes]):
            frame = Embedding(probe, crowd.space.id).to_bytes()
            result = await find(
                workspace=crowd.workspace, frames=[frame], gallery=crowd.galleries[size], threshold=-1.0
            )
            candidates = result.faces[0].candidates
            taken.append(result.query_ms)
            first.append(candidates[0].best.reference if candidates else None)
    return _Timed(taken[WARM_UP:], first[WARM_UP:])


def _mates(crowd: Crowd, nearest: NDArray[np.int64], timed: _Timed) -> Row:
    """Compare with the exact search: how often is the mate first, of the times that it should be?"""
    should = nearest == crowd.probes.mates
    does = np.array(
        [found == crowd.references[mate] for found, mate in zip(timed.first, crowd.probes.mates, strict=True)]
    )
    real = np.arange(len(should)) < crowd.probes.real
    return Row(
        name="search.mate_first",
        what=f"Search among {max(SIZES):,}: the right person first, of those whom exact search has first",
        value=float(does[should].mean()),
        shown="{:.2%}",
        note=f"{does[should & real].mean():.2%} of the real and {does[should & ~real].mean():.2%} of the made-up ones; "
        f"exact search has {should[real].mean():.1%} of {int(real.sum()):,} real and {should[~real].mean():.1%} of "
        f"{int((~real).sum()):,} made-up probes first. Filling: {crowd.seconds}",
    )
