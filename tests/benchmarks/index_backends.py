"""The same people in each vector index, through the service's own use cases."""

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from dishka import AsyncContainer
from dishka import Scope as Lifetime
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.engine import make_url

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.persistence import schema
from adapters.persistence.database import Database, engine
from application.ports.upkeep import Upkeep
from application.use_cases.keys.bootstrap import Bootstrap
from application.use_cases.matching.search_faces import SearchFaces
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.rebuild_index import RebuildIndex
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.permission import Scope
from domain.workspace import WorkspaceId
from entrypoints.settings import DatabaseSettings, Settings, VectorIndexSettings
from entrypoints.wiring.startup import opened
from tests.benchmarks.bench import Bench
from tests.benchmarks.crowd import Probes, StandInProvider, enrolled, people, settled
from tests.benchmarks.load import percentile
from tests.benchmarks.measured import Figure, Measured, Part, Progress, megabytes
from tests.benchmarks.throwaway import memory, peak_memory

PEOPLE: Final = 20_000
PHOTOGRAPHS: Final = 1_500
"""Real ones, whose people are enrolled among others who are made up to be like them."""
SEARCHES: Final = 300
SEARCHES_OF_LOCAL_MODE: Final = 24
ROUNDS: Final = 6
SINGLY: Final = 100
"""References that are written one by one, as enrolments do."""
GRAPH_FROM: Final = PEOPLE // 2
THRESHOLD: Final = 0.953
"""One false match in 100,000 by the curve of the pack `open`: less than one stranger a search is above it."""

_LIMIT: Final = 10
_WARM_UP: Final = 10
"""One in so many searches is made before any is counted."""
_CALLED: Final = "measured"
_RECORD: Final = "record"

_Vectors = NDArray[np.float32]
_Found = list[tuple[ReferenceId, float]]

FIGURES: Final = (
    Figure("written", "written, 200 at a time: references/s", "{:,.0f}"),
    Figure("one", "one reference written, median", "{:.1f} ms"),
    Figure("median", "search, median", "{:.1f} ms"),
    Figure("p95", "search, p95", "{:.1f} ms"),
    Figure("first", "right person first, of those whom exact search has first", "{:.1%}", compared=False),
    Figure("same", "same decisions as exact search", "{:.1%}", compared=False),
    Figure("disk", "on disk", "{:.1f} MB"),
    Figure("memory", "the service's memory, growth at its peak", "{:.0f} MB"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One index, and how much is asked of it."""

    backend: str
    settings: VectorIndexSettings
    searches: int = SEARCHES
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all of them are measured on: a record to copy, and who is looked for in it."""

    server: str
    folder: Path
    workspace: WorkspaceId
    gallery: GalleryId
    space: EmbeddingSpace
    probes: _Vectors
    mates: Sequence[ReferenceId]
    nearest: Sequence[ReferenceId]
    """Whom exact search has first, for each probe."""
    decided: Sequence[Sequence[ReferenceId]]
    """Those at or above the threshold by exact search, best first."""


def vector_indexes(bench: Bench, progress: Progress, qdrant_url: str | None) -> Part:
    """Measure each in a process of its own, over a copy of one record.

    They are filled one after another and asked in turn, so that what else the machine does meets all of them.
    """
    space = bench.embedder.space
    vectors, probes = people(bench, PEOPLE, bench.photos[:PHOTOGRAPHS])
    with _server() as (folder, server), _in_memory() as memory_folder, ExitStack() as stack:
        progress(f"enrolling {PEOPLE:,} people")
        ground = asyncio.run(_ground(folder, server, space, vectors, probes))
        plans = _plans(memory_folder, qdrant_url)
        processes = [
            stack.enter_context(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))) for _ in plans
        ]
        for plan, process in zip(plans, processes, strict=True):
            progress.of(plan.backend)(f"writing {PEOPLE:,} references")
            process.submit(_begin, plan, ground).result()
        for number in range(ROUNDS):
            progress.of("all of them")(f"round {number + 1} of {ROUNDS}")
            for process in processes:
                process.submit(_go_round, number).result()
        measured = [process.submit(_end).result() for process in processes]
    return Part(port=f"vector index, {PEOPLE:,} people", figures=FIGURES, backends=measured)


def _plans(folder: Path, qdrant_url: str | None) -> list[Plan]:
    qdrant = (
        Plan(
            backend="qdrant, a server",
            settings=_index(backend="qdrant", url=qdrant_url, timeout=60.0),
            note="where `FACEPASS_TEST_QDRANT_URL` says",
        )
        if qdrant_url
        else Plan(
            backend="qdrant, local mode",
            settings=_index(backend="qdrant", path=folder),
            searches=SEARCHES_OF_LOCAL_MODE,
            note="no server but qdrant-client's own store in the process, for trying out: it compares with every "
            f"vector, so {SEARCHES_OF_LOCAL_MODE} searches in place of {SEARCHES}, and waits for the disk after every "
            "eighth vector, so its folder lies in memory where there is room. It says nothing of a Qdrant server",
        )
    )
    return [
        Plan(backend="pgvector", settings=_index(), note="the default; up to 20,000 references it compares with all"),
        Plan(
            backend="pgvector, its graph",
            settings=_index(exact_up_to=GRAPH_FROM),
            note=f"`FACEPASS_VECTOR_INDEX__EXACT_UP_TO={GRAPH_FROM}`",
        ),
        Plan(
            backend="pgvector, 16 bits",
            settings=_index(half_precision=True),
            note="`FACEPASS_VECTOR_INDEX__HALF_PRECISION=true`, and as the default otherwise",
        ),
        qdrant,
    ]


def _index(**settings: Any) -> VectorIndexSettings:  # noqa: ANN401 - the settings' own types
    """All under one name: each copy of the record takes its index for the one that it was filled with."""
    return VectorIndexSettings(name=_CALLED, **settings)


# ---------------------------------------------------------------------------------------------- what is measured


class _Session:
    """One index, open from the first call to the last."""

    def __init__(self, plan: Plan, ground: Ground) -> None:
        self._plan = plan
        self._ground = ground
        self._stack = AsyncExitStack()
        self._runner = asyncio.Runner()
        self._figures: dict[str, float] = {}
        self._graph = 0.0
        self._taken: list[float] = []
        self._written: list[float] = []
        self._found: list[_Found] = []

    def begin(self) -> None:
        self._runner.run(self._fill())

    def go_round(self, number: int) -> None:
        each = self._plan.searches // ROUNDS
        taken, found = self._runner.run(self._searches(number * each, (number + 1) * each))
        self._taken += taken
        self._found += found
        self._written += self._runner.run(self._write_again(number))

    def end(self) -> Measured:
        try:
            figures = self._figures | {
                "one": statistics.median(self._written),
                "median": statistics.median(self._taken),
                "p95": percentile(self._taken, 0.95),
                **_agreement(self._ground, self._found),
                **self._runner.run(_on_disk(self._settings)),
                "memory": (peak_memory(os.getpid()) - self._before) / 1e6,
            }
        finally:
            self._runner.run(self._stack.aclose())
            self._runner.close()
        built = f"; building the graph took {self._graph:.0f} s more" if self._plan.settings.exact_up_to else ""
        return Measured(backend=self._plan.backend, figures=figures, note=self._plan.note + built)

    async def _fill(self) -> None:
        ground, database = self._ground, f"copy_{os.getpid()}"
        await _execute(ground.server, f"CREATE DATABASE {database} TEMPLATE {_RECORD}")
        self._settings = _settings(ground.server, ground.folder, database, self._plan.settings)
        container = await self._stack.enter_async_context(opened(self._settings, StandInProvider(ground.space)))
        self._find = await container.get(SearchFaces)
        self._before = memory(os.getpid())
        self._figures["written"] = PEOPLE / await _rebuilt(container, ground)
        (self._index,) = (await container.get(ServedSpaces)).first.indexes.values()
        self._entries = [entry async for entry in self._index.entries(ground.gallery)][:SINGLY]
        began = time.perf_counter()
        for backend in await container.get(list[Upkeep]):
            await backend.tidy()
        self._graph = time.perf_counter() - began
        await settled(await container.get(Database))
        await self._searches(0, self._plan.searches // _WARM_UP)

    async def _searches(self, first: int, last: int) -> tuple[list[float], list[_Found]]:
        """Search one after another, without inference; everybody is let through, and decided about afterwards."""
        taken: list[float] = []
        found: list[_Found] = []
        for probe in self._ground.probes[first:last]:
            frame = Embedding(probe, self._ground.space.id).to_bytes()
            result = await self._find(
                workspace=self._ground.workspace,
                frames=[frame],
                gallery=self._ground.gallery,
                threshold=-1.0,
                limit=_LIMIT,
            )
            taken.append(result.query_ms)
            found.append([(one.best.reference, one.similarity) for one in result.faces[0].candidates])
        return taken, found

    async def _write_again(self, number: int) -> list[float]:
        """Write some references once more, one by one; return the milliseconds of each."""
        taken: list[float] = []
        for entry in self._entries[number::ROUNDS]:
            began = time.perf_counter()
            await self._index.upsert([entry])
            taken.append((time.perf_counter() - began) * 1000)
        return taken


_session: Final[list[_Session]] = []
"""The one of this process."""


def _begin(plan: Plan, ground: Ground) -> None:
    _session.append(_Session(plan, ground))
    _session[0].begin()


def _go_round(number: int) -> None:
    _session[0].go_round(number)


def _end() -> Measured:
    return _session.pop().end()


async def _rebuilt(container: AsyncContainer, ground: Ground) -> float:
    began = time.perf_counter()
    async with container(scope=Lifetime.REQUEST) as unit:
        done = await (await unit.get(RebuildIndex))(workspace=ground.workspace, gallery=ground.gallery)
    assert done.references == PEOPLE
    return time.perf_counter() - began


def _agreement(ground: Ground, found: Sequence[_Found]) -> dict[str, float]:
    asked = range(len(found))
    should = [number for number in asked if ground.nearest[number] == ground.mates[number]]
    first = [number for number in should if found[number] and found[number][0][0] == ground.mates[number]]
    same = [number for number in asked if _above(found[number]) == ground.decided[number]]
    return {"first": len(first) / len(should), "same": len(same) / len(found)}


def _above(found: _Found) -> Sequence[ReferenceId]:
    return [reference for reference, similarity in found if similarity >= THRESHOLD]


async def _on_disk(settings: Settings) -> dict[str, float]:
    """Megabytes, where they are known."""
    index = settings.vector_index
    if index.path is not None:
        return {"disk": megabytes(index.path)}
    if index.backend != "pgvector":
        return {}
    tables = "relkind = 'r' AND relname ~ '^(vector|halfvec)s_'"
    size = await _execute(
        str(settings.database.url),
        f"SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE {tables}",  # noqa: S608 - ours
    )
    return {"disk": size / 1e6}


# -------------------------------------------------------------------------------------------------- the record


@contextmanager
def _in_memory() -> Iterator[Path]:
    """A folder that no disk holds up, where the system has such a place."""
    place = Path("/dev/shm")  # noqa: S108 - a private folder in it
    with tempfile.TemporaryDirectory(prefix="facepass-benchmark-", dir=place if place.is_dir() else None) as folder:
        yield Path(folder) / "qdrant"


@contextmanager
def _server() -> Iterator[tuple[Path, str]]:
    """A PostgreSQL of its own, which goes with its folder."""
    with tempfile.TemporaryDirectory(prefix="facepass-benchmark-") as name:
        folder = Path(name)
        # Started by root, PostgreSQL runs as another account, which must get to its folder.
        folder.chmod(0o711)
        postgres = EmbeddedPostgres(folder / "postgres")
        try:
            yield folder, postgres.start()
        finally:
            postgres.stop()
            postgres.wait_ended(60.0)


async def _ground(folder: Path, server: str, space: EmbeddingSpace, vectors: _Vectors, probes: Probes) -> Ground:
    await _execute(server, f"CREATE DATABASE {_RECORD}")
    settings = _settings(server, folder, _RECORD, _index())
    await schema.upgrade(str(settings.database.url))
    async with opened(settings, StandInProvider(space)) as container:
        async with container(scope=Lifetime.REQUEST) as unit:
            made = await (await unit.get(Bootstrap))(new_key=False, scopes=frozenset(Scope))
        gallery, references = await enrolled(container, made.workspace.id, "people", vectors, space)
        await settled(await container.get(Database))
    chosen = np.random.default_rng(11).permutation(len(probes.vectors))[:SEARCHES]
    similarities = probes.vectors[chosen] @ vectors.T
    best = np.argsort(-similarities, axis=1)[:, :_LIMIT]
    return Ground(
        server=server,
        folder=folder,
        workspace=made.workspace.id,
        gallery=gallery,
        space=space,
        probes=probes.vectors[chosen],
        mates=[references[mate] for mate in probes.mates[chosen]],
        nearest=[references[row[0]] for row in best],
        decided=[
            [references[place] for place in row if similar[place] >= THRESHOLD]
            for row, similar in zip(best, similarities, strict=True)
        ],
    )


def _settings(server: str, folder: Path, database: str, index: VectorIndexSettings) -> Settings:
    url = make_url(server).set(database=database).render_as_string(hide_password=False)
    return Settings(
        data_dir=folder / "data",
        database=DatabaseSettings(url=url, timeout=60.0),
        vector_index=index,
    )


async def _execute(url: str, statement: str) -> Any:  # noqa: ANN401 - a column's own type
    """Run one statement in a transaction of its own, or none; return the one value that it gives."""
    pool = engine(url, connections=1, timeout=60.0, autocommit=True)
    try:
        async with pool.connect() as connection:
            result = await connection.execute(text(statement))
            return result.scalar_one() if result.returns_rows else None
    finally:
        await pool.dispose()
