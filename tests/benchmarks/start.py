"""From the start of the process until it is ready, and what it takes while nobody asks."""

import statistics
import time

from tests.benchmarks.bench import Bench
from tests.benchmarks.load import spread
from tests.benchmarks.processor import postgres_processes
from tests.benchmarks.rows import Row
from tests.benchmarks.throwaway import memory, throwaway

STARTS = 5
SETTLING = 3.0
"""Seconds after which what was only needed for starting has gone."""


def start(bench: Bench) -> list[Row]:
    taken: list[float] = []
    idle, database = 0, 0
    with throwaway(bench.models) as service:
        service.bootstrapped()
        for number in range(STARTS):
            bench.tell(f"start {number + 1} of {STARTS}")
            assert service.ended()
            with service.serving() as server:
                taken.append(server.seconds)
                if number == STARTS - 1:
                    time.sleep(SETTLING)
                    idle = memory(server.pid)
                    # Not the sum of what each has in memory: they share most of it.
                    database = sum(process.memory_full_info().pss for process in postgres_processes(service.cluster))
    return [
        Row(
            name="start.ready",
            what="From the start of the process to ready, with its data and models there, median",
            value=statistics.median(taken),
            shown="{:.2f} s",
            note=f"{STARTS} starts, PostgreSQL stopped before each: {spread(taken)}",
        ),
        Row(
            name="start.idle",
            what="Memory of the idle server",
            value=idle / 2**20,
            shown="{:.0f} MiB",
            note=f"PostgreSQL beside it: {database / 2**20:.0f} MiB",
        ),
    ]
