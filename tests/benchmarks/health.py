"""Health checks while a hundred thousand people are enrolled."""

import statistics
import time

from tests.benchmarks.bench import NO_PHOTOGRAPHS, Bench
from tests.benchmarks.crowd import SIZES, Crowd
from tests.benchmarks.load import Connection, get, percentile
from tests.benchmarks.rows import Row, unmeasured

CHECKS = 300
PAUSE = 0.02
"""Seconds between two checks: over the run, readiness is found out anew several times."""


def health(bench: Bench) -> list[Row]:
    if not bench.photos:
        return [unmeasured("health.live", "Health checks", NO_PHOTOGRAPHS)]
    crowd = Crowd.of(bench)
    rows = []
    with crowd.service.serving() as server, Connection(server.address) as connection:
        for name in ("live", "ready"):
            bench.tell(f"{CHECKS} of /health/{name}")
            taken = []
            for _ in range(CHECKS):
                response = connection.call(get(f"/health/{name}"))
                assert response.status == 200, response.body
                taken.append(response.seconds * 1000)
                time.sleep(PAUSE)
            rows.append(
                Row(
                    name=f"health.{name}",
                    what=f"`/health/{name}` with {sum(SIZES):,} people enrolled, median",
                    value=statistics.median(taken),
                    shown="{:.2f} ms",
                    note=f"p95 {percentile(taken, 0.95):.2f} ms, slowest {max(taken):.1f} ms",
                )
            )
    return rows
