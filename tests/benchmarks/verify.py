"""Photographs a second through HTTP beside the same pipeline called in the process."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

import numpy as np

from adapters.face_embedder.onnx import OnnxFaceEmbedder
from adapters.inference.image_header import ImageLimits
from adapters.inference.picture import Picture
from domain.face import Embed
from tests.benchmarks.bars import BARS
from tests.benchmarks.bench import NO_PHOTOGRAPHS, Bench
from tests.benchmarks.load import Connection, Load, load_process, loaded, post_image, spread
from tests.benchmarks.processor import Spent, spent
from tests.benchmarks.rows import Row, unmeasured
from tests.benchmarks.throwaway import throwaway

PHOTOS = 120
ROUNDS = 20
CLIENTS = 4
CEILING = 160.0
"""Images a second of the pipeline alone, for which the bar of images a second holds; it shrinks with the machine."""


def verify(bench: Bench) -> list[Row]:
    if not bench.photos:
        return [unmeasured("verify.ratio", "Verification through HTTP", NO_PHOTOGRAPHS)]
    photos = bench.alone(PHOTOS)
    images = [photo.content for photo in photos]
    pipeline = _Pipeline(bench.embedder)
    alone, through, ratios = [], [], []
    load: Load | None = None
    client_time, server_time, images_done = 0.0, Spent(event_loop=0.0, inference=0.0, postgres=0.0), 0
    with throwaway(bench.models) as service, load_process() as process:
        key = service.bootstrapped()["api_key"]
        with service.serving() as server:
            with Connection(server.address) as connection:
                enrol = post_image("/api/v1/galleries/default/references", key, images[0], {"external_id": "claimed"})
                assert connection.call(enrol).status == 201
            requests = [post_image("/api/v1/verify", key, image, {"external_id": "claimed"}) for image in images]
            pipeline.images_a_second(images[:100])
            process.submit(loaded, server.address, requests[:100], clients=CLIENTS).result()
            for number in range(ROUNDS):
                bench.tell(f"round {number + 1} of {ROUNDS}")
                alone.append(pipeline.images_a_second(images))
                before = spent(server.pid, service.cluster)
                load = process.submit(loaded, server.address, requests, clients=CLIENTS).result()
                server_time += spent(server.pid, service.cluster) - before
                assert not load.errors, load.failure
                client_time += load.processor_seconds
                images_done += len(requests)
                through.append(load.rate)
                ratios.append(load.rate / alone[-1])
    ceiling, rate = statistics.median(alone), statistics.median(through)
    scaled = BARS["verify.images"].limit * min(1.0, ceiling / CEILING)

    def each(seconds: float) -> float:
        return seconds * 1000 / images_done

    layers = each(server_time.inference + server_time.event_loop + server_time.postgres + client_time)
    return [
        Row(
            name="verify.ratio",
            what=f"`POST /verify` by {CLIENTS} clients, beside the pipeline alone in {cpu_count()} threads",
            value=statistics.median(ratios),
            shown="{:.2f}",
            note=f"LFW photographs of 250 x 250; {ROUNDS} rounds in turn: {spread(ratios)}",
        ),
        Row(
            name="verify.images",
            what=f"the same in images/s, scaled to a machine whose pipeline alone does {CEILING:.0f}",
            value=rate * BARS["verify.images"].limit / scaled,
            shown="{:.0f}",
            note=f"here {rate:.0f} images/s ({spread(through, '{:.0f}')}), the pipeline alone {ceiling:.0f} "
            f"({spread(alone, '{:.0f}')})",
        ),
        Row(
            name="verify.cpu_ratio",
            what="the same ratio by processor time alone, which other work on the machine does not change",
            value=pipeline.milliseconds / layers,
            shown="{:.2f}",
            note=f"{pipeline.milliseconds:.2f} ms an image of {layers:.2f} in all layers, the client included",
        ),
        Row(
            name="verify.cpu_pipeline",
            what="CPU ms an image: the pipeline alone",
            value=pipeline.milliseconds,
            shown="{:.2f}",
            note=_stages(bench.embedder, images[:100]),
        ),
        Row(
            name="verify.cpu_inference",
            what="CPU ms an image: the server's inference threads",
            value=each(server_time.inference),
            shown="{:.2f}",
        ),
        Row(
            name="verify.cpu_event_loop",
            what="CPU ms an image: the server's event loop (HTTP, use case, database client)",
            value=each(server_time.event_loop),
            shown="{:.2f}",
        ),
        Row(
            name="verify.cpu_postgres",
            what="CPU ms an image: PostgreSQL",
            value=each(server_time.postgres),
            shown="{:.2f}",
        ),
        Row(name="verify.cpu_client", what="CPU ms an image: the client", value=each(client_time), shown="{:.2f}"),
    ]


class _Pipeline:
    """The service's pipeline, called from as many threads as there are cores."""

    def __init__(self, embedder: OnnxFaceEmbedder) -> None:
        self._embedder = embedder
        self._taken = 0.0
        self._done = 0

    def images_a_second(self, images: list[bytes]) -> float:
        with ThreadPoolExecutor(cpu_count()) as threads:
            processor, began = time.process_time(), time.perf_counter()
            list(threads.map(lambda image: self._embedder.analyse_now(image, embed=Embed.LARGEST), images))
            seconds = time.perf_counter() - began
            self._taken += time.process_time() - processor
            self._done += len(images)
        return len(images) / seconds

    @property
    def milliseconds(self) -> float:
        """Processor time an image, so far."""
        return self._taken * 1000 / self._done


def _stages(embedder: OnnxFaceEmbedder, images: list[bytes]) -> str:
    """Time what `analyse_now` is made of, one by one, in one thread."""
    names = ("decode", "detect", "align", "embed")
    taken: dict[str, list[float]] = {name: [] for name in (*names, "whole")}
    for image in images:
        marks = [time.perf_counter()]
        pixels = Picture(image, ImageLimits()).decoded()
        marks.append(time.perf_counter())
        found = embedder._analyser.detector.find(pixels)
        marks.append(time.perf_counter())
        chips = embedder._analyser.aligner.chips(pixels, found.landmarks)
        marks.append(time.perf_counter())
        embedder._analyser.embeddings(chips[:1])
        marks.append(time.perf_counter())
        embedder.analyse_now(image, embed=Embed.LARGEST)
        taken["whole"].append(time.perf_counter() - marks[-1])
        for name, seconds in zip(names, np.diff(marks), strict=True):
            taken[name].append(float(seconds))
    means = {name: statistics.mean(values) * 1000 for name, values in taken.items()}
    rest = means["whole"] - sum(means[name] for name in names)
    return "in one thread " + ", ".join(f"{name} {means[name]:.2f}" for name in names) + f", the rest {rest:.2f}"
