"""The converted embedder beside dlib's own, on the same chips."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import dlib
import numpy as np
import skimage.data
from numpy.typing import NDArray

from adapters.inference.sessions import open_graph
from adapters.packs.fetch import Fetcher
from entrypoints.settings import process_environment
from tests.benchmarks.bench import Bench
from tests.benchmarks.rows import Row

CHIPS = 32
BATCH = 8
"""As the service has it."""
ROUNDS = 3


def embedder(bench: Bench) -> list[Row]:
    chips = _chips(CHIPS)
    part = bench.packs.get("open").embedder
    assert part is not None
    graph = open_graph(bench.packs.files("open")[part.name], port="face_embedder")
    with tempfile.TemporaryDirectory(prefix="facepass-benchmark-") as folder:
        bench.tell("fetching dlib's own weights")
        fetched = Fetcher(process_environment()).fetch(part.weights.source, Path(folder), lambda *_: None)
        network = dlib.face_recognition_model_v1(str(fetched.path))

    def ours() -> NDArray[np.float32]:
        return np.concatenate([graph(chips[start : start + BATCH])[0] for start in range(0, CHIPS, BATCH)])

    def one_by_one() -> NDArray[np.float32]:
        return np.concatenate([graph(chip[None])[0] for chip in chips])

    def theirs() -> NDArray[np.float32]:
        return np.array([network.compute_face_descriptor(chip) for chip in chips], np.float32)

    def theirs_in_batches() -> NDArray[np.float32]:
        parts = [chips[start : start + BATCH] for start in range(0, CHIPS, BATCH)]
        return np.array([one for part in parts for one in network.compute_face_descriptor(list(part))], np.float32)

    difference = float(np.abs(ours() - theirs()).max())
    times: dict[Callable[[], object], list[float]] = {run: [] for run in (ours, one_by_one, theirs, theirs_in_batches)}
    for number in range(ROUNDS):
        bench.tell(f"round {number + 1} of {ROUNDS}")
        for run, taken in times.items():
            taken.append(_milliseconds(run))
    best = {run: min(taken) for run, taken in times.items()}
    dlib_best = min(best[theirs], best[theirs_in_batches])
    how = f"{CHIPS} chips, one thread each, the best of {ROUNDS} rounds; ONNX in batches of {BATCH}, "
    return [
        Row(
            name="embedder.difference",
            what="Converted embedder against dlib's own: largest difference of any number",
            value=difference,
            shown="{:.1e}",
        ),
        Row(
            name="embedder.speed",
            what="How many times as fast as dlib's own",
            value=dlib_best / best[ours],
            shown="{:.1f}",
            note=how
            + f"{best[ours]:.2f} ms a chip, one by one {best[one_by_one]:.2f}; dlib one by one "
            + f"{best[theirs]:.1f}, in batches {best[theirs_in_batches]:.1f}",
        ),
    ]


def _milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000 / CHIPS


def _chips(count: int) -> NDArray[np.uint8]:
    """Crops of one real face, each another one: the time does not depend on what is seen."""
    photo: NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]  # scikit-image has no types here
    crops = []
    for number in range(count):
        top, left, side = 50 + number % 8 * 3, 150 + number // 8 * 3, 110 + number % 5 * 10
        crops.append(cv2.resize(photo[top : top + side, left : left + side], (150, 150)))
    return np.stack(crops)
