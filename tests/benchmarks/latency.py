"""What a single client waits for beside the pipeline itself."""

import statistics
import time

from domain.face import Embed
from tests.benchmarks.bench import NO_PHOTOGRAPHS, Bench
from tests.benchmarks.load import Connection, percentile, post_image
from tests.benchmarks.rows import Row, unmeasured
from tests.benchmarks.throwaway import throwaway

PHOTOS = 200
WARM_UP = 20


def latency(bench: Bench) -> list[Row]:
    what = "One client: median of `POST /verify` less the median of the pipeline alone"
    if not bench.photos:
        return [unmeasured("latency.added", what, NO_PHOTOGRAPHS)]
    images = [photo.content for photo in bench.alone(PHOTOS)]
    alone, through = [], []
    with throwaway(bench.models) as service:
        key = service.bootstrapped()["api_key"]
        with service.serving() as server, Connection(server.address) as connection:
            enrol = post_image("/api/v1/galleries/default/references", key, images[0], {"external_id": "claimed"})
            assert connection.call(enrol).status == 201
            bench.tell(f"{PHOTOS} photographs in turn")
            for image in [*images[:WARM_UP], *images]:
                response = connection.call(post_image("/api/v1/verify", key, image, {"external_id": "claimed"}))
                assert response.status == 200, response.body
                through.append(response.seconds * 1000)
                began = time.perf_counter()
                bench.embedder.analyse_now(image, embed=Embed.LARGEST)
                alone.append((time.perf_counter() - began) * 1000)
    through, alone = through[WARM_UP:], alone[WARM_UP:]
    return [
        Row(
            name="latency.added",
            what=what,
            value=statistics.median(through) - statistics.median(alone),
            shown="{:.2f} ms",
            note=f"{statistics.median(through):.1f} ms (p95 {percentile(through, 0.95):.1f}) and "
            f"{statistics.median(alone):.1f} (p95 {percentile(alone, 0.95):.1f}), photograph by photograph in turn",
        )
    ]
