"""A thousand enrolments: no error, and memory that stays."""

from tests.benchmarks.bench import NO_PHOTOGRAPHS, Bench
from tests.benchmarks.load import load_process, loaded, post_image
from tests.benchmarks.rows import Row, unmeasured
from tests.benchmarks.throwaway import memory, throwaway

ENROLMENTS = 1_000
STEP = 200
CLIENTS = 4


def enrol(bench: Bench) -> list[Row]:
    what = f"{ENROLMENTS:,} enrolments by {CLIENTS} clients"
    if not bench.photos:
        return [unmeasured("enrol.errors", what, NO_PHOTOGRAPHS)]
    photos = bench.alone(ENROLMENTS)
    sizes: list[int] = []
    rates: list[float] = []
    errors, failure = 0, b""
    with throwaway(bench.models) as service, load_process() as process:
        key = service.bootstrapped()["api_key"]
        with service.serving() as server:
            requests = [
                post_image("/api/v1/galleries/default/references", key, photo.content, {"external_id": f"person-{i}"})
                for i, photo in enumerate(photos)
            ]
            for start in range(0, ENROLMENTS, STEP):
                bench.tell(f"{start:,} of {ENROLMENTS:,}")
                part = requests[start : start + STEP]
                load = process.submit(loaded, server.address, part, clients=CLIENTS).result()
                errors += load.errors
                failure = failure or load.failure
                rates.append(load.rate)
                sizes.append(memory(server.pid))
    shown = ", ".join(f"{size / 2**20:.0f}" for size in sizes)
    return [
        Row(
            name="enrol.errors",
            what=f"{what}: errors",
            value=float(errors),
            shown="{:.0f}",
            note=failure.decode()[:200] or f"{min(rates):.0f} to {max(rates):.0f} enrolments/s",
        ),
        Row(
            name="enrol.growth",
            what=f"{what}: growth of the server's memory after the first {STEP}",
            value=max(sizes[1:]) / sizes[0] - 1.0,
            shown="{:+.1%}",
            note=f"{shown} MiB after each {STEP}",
        ),
    ]
