"""A hundred thousand people: those of LFW, and others who are made up to be like them."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self, final
from uuid import UUID

import numpy as np
from dishka import AsyncContainer, Provider, provide
from dishka import Scope as Lifetime
from msgspec.structs import replace
from numpy.typing import NDArray
from sqlalchemy import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.personal import PersonalFields
from adapters.persistence.tables import DATA_KEYS, PEOPLE
from application.ports.cipher import Cipher, DataKeyId, WrappedKey
from application.ports.face_embedder import FaceEmbedder
from application.ports.id_generator import IdGenerator
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import NewReference, ReferenceRepository
from application.ports.transaction import Transaction
from application.ports.upkeep import Upkeep
from application.use_cases.galleries.create_gallery import CreateGallery
from application.use_cases.references.places import template_place
from application.use_cases.upkeep.rebuild_index import RebuildIndex
from domain.alignment import pose_of
from domain.embedding import Embedding, EmbeddingSpace
from domain.enrolment import Reference, ReferenceId
from domain.face import Analysis, Box, Embed, Face, Landmarks, Point
from domain.gallery import GalleryId, Policy
from domain.person import Person, PersonId
from domain.quality import Quality
from domain.workspace import WorkspaceId
from entrypoints.wiring.startup import opened
from tests.benchmarks.bench import Bench, Photo
from tests.benchmarks.throwaway import Throwaway, throwaway

SIZES: Final = (1_000, 10_000, 100_000)
PROBES: Final = 1_000
"""Made-up people who are looked for, and at most as many real ones."""
_BATCH: Final = 1_000
_Vectors = NDArray[np.float32]


@final
class StandIn(FaceEmbedder):
    """Takes the bytes of an embedding for an image, so that a search is all but inference."""

    def __init__(self, space: EmbeddingSpace) -> None:
        self._space = space

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:  # noqa: ARG002 - there is one face
        return Analysis(width=250, height=250, faces=(_face(Embedding.from_bytes(image, self._space.id)),))

    async def close(self) -> None:
        pass


class StandInProvider(Provider):
    """Puts the stand-in in the place of the real one."""

    scope = Lifetime.APP

    def __init__(self, space: EmbeddingSpace) -> None:
        super().__init__()
        self._space = space

    @provide(override=True)
    def embedder(self) -> FaceEmbedder:
        return StandIn(self._space)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Who is looked for in the largest gallery."""

    vectors: _Vectors
    mates: NDArray[np.int64]
    """Each one's place in the gallery."""
    real: int
    """How many of them, the first ones, are photographs; the others are made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """An installation with one gallery a size, filled, and what NumPy needs to search the same."""

    service: Throwaway
    key: str
    workspace: WorkspaceId
    space: EmbeddingSpace
    galleries: dict[int, GalleryId]
    vectors: _Vectors
    """One row a person of the largest gallery; the smaller ones hold the first of them."""
    references: Sequence[ReferenceId]
    """The same, by their ids in the largest gallery."""
    probes: Probes
    seconds: str
    """What filling took, in words."""

    @classmethod
    def of(cls, bench: Bench) -> Self:
        """Fill it, or return the one that was filled before."""
        known = bench.made.get("crowd")
        if known is None:
            known = bench.made["crowd"] = _filled(bench)
        assert isinstance(known, cls)
        return known

    def provider(self) -> StandInProvider:
        return StandInProvider(self.space)


def _filled(bench: Bench) -> Crowd:
    space = bench.embedder.space
    vectors, probes = people(bench, max(SIZES), bench.photos)
    service = bench.stack.enter_context(throwaway(bench.models))
    bootstrapped = service.bootstrapped()
    workspace = WorkspaceId(UUID(bootstrapped["workspace_id"]))

    async def fill() -> tuple[dict[int, GalleryId], list[ReferenceId], str]:
        galleries: dict[int, GalleryId] = {}
        references: list[ReferenceId] = []
        taken: list[str] = []
        # A thousand people a statement: what a call may take is no measure of it.
        database = replace(service.settings.database, timeout=60.0)
        async with opened(replace(service.settings, database=database), StandInProvider(space)) as container:
            for size in SIZES:
                loop = asyncio.get_running_loop()
                began = loop.time()
                bench.tell(f"enrolling {size:,} people")
                name = f"people-{size}"
                galleries[size], references = await enrolled(container, workspace, name, vectors[:size], space)
                recorded = loop.time()
                bench.tell(f"indexing {size:,} people")
                async with container(scope=Lifetime.REQUEST) as unit:
                    await (await unit.get(RebuildIndex))(workspace=workspace, gallery=galleries[size])
                written = loop.time()
                for one in await container.get(list[Upkeep]):
                    await one.tidy()
                taken.append(
                    f"{size:,}: record {recorded - began:.0f} s, index {written - recorded:.0f} s, "
                    f"graph {loop.time() - written:.0f} s"
                )
            await settled(await container.get(Database))
        return galleries, references, "; ".join(taken)

    galleries, references, seconds = asyncio.run(fill())
    return Crowd(
        service=service,
        key=bootstrapped["api_key"],
        workspace=workspace,
        space=space,
        galleries=galleries,
        vectors=vectors,
        references=references,
        probes=probes,
        seconds=seconds,
    )


def people(bench: Bench, size: int, photos: Sequence[Photo]) -> tuple[_Vectors, Probes]:
    """Real people first looked at, then others made up of what the real ones have in common; the same in every run.

    A vector is a person's place plus what differs from photograph to photograph, both Gaussian with the covariances
    that LFW shows (analysis of variance: Searle, Casella, McCulloch, Variance Components, 1992, section 3.6), scaled
    to length 1. The real ones are spread over the gallery.
    """
    random = np.random.default_rng(11)
    by_person: dict[str, list[_Vectors]] = defaultdict(list)
    for photo, analysis in zip(photos, bench.analyses(photos), strict=True):
        if analysis.central is not None and analysis.central.embedding is not None:
            by_person[photo.person].append(analysis.central.embedding.vector)
    albums = [np.stack(vectors) for vectors in by_person.values()]
    mean, between, within = _spreads(albums)
    made_up = size - len(albums)
    centres = random.multivariate_normal(mean, between, made_up, method="eigh")
    enrolled = _normalised(
        np.concatenate(
            [
                np.stack([album[0] for album in albums]),
                centres + random.multivariate_normal(np.zeros_like(mean), within, made_up, method="eigh"),
            ]
        )
    )
    place = random.permutation(size)
    gallery = np.empty_like(enrolled)
    gallery[place] = enrolled
    again = [index for index, album in enumerate(albums) if len(album) > 1][:PROBES]
    sought = random.choice(made_up, PROBES, replace=False)
    noise = random.multivariate_normal(np.zeros_like(mean), within, PROBES, method="eigh")
    probes = _normalised(np.concatenate([np.stack([albums[index][1] for index in again]), centres[sought] + noise]))
    mates = place[np.concatenate([np.array(again), sought + len(albums)])]
    return gallery, Probes(vectors=probes, mates=mates, real=len(again))


def _spreads(albums: Sequence[_Vectors]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of people, covariance between people, covariance among the photographs of one person."""
    means = np.stack([album.mean(axis=0, dtype=np.float64) for album in albums])
    residuals = np.concatenate([album - mean for album, mean in zip(albums, means, strict=True)])
    counts = np.array([len(album) for album in albums])
    within = residuals.T @ residuals / (counts - 1).sum()
    between = np.cov(means, rowvar=False) - within * (1.0 / counts).mean()
    values, axes = np.linalg.eigh(between)
    return means.mean(axis=0), (axes * np.maximum(values, 0.0)) @ axes.T, within


def _normalised(vectors: NDArray[Any]) -> _Vectors:
    scaled: _Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


async def enrolled(
    container: AsyncContainer, workspace: WorkspaceId, name: str, vectors: _Vectors, space: EmbeddingSpace
) -> tuple[GalleryId, list[ReferenceId]]:
    """Do what enrolment does to the record, a thousand people a transaction."""
    cipher, ids = await container.get(Cipher), await container.get(IdGenerator)
    personal = PersonalFields(cipher, await container.get(KeyedHash))
    async with container(scope=Lifetime.REQUEST) as unit:
        gallery = (await (await unit.get(CreateGallery))(workspace=workspace, name=name, policy=Policy())).id
    references: list[ReferenceId] = []
    for start in range(0, len(vectors), _BATCH):
        some = vectors[start : start + _BATCH]
        async with container(scope=Lifetime.REQUEST) as unit:
            made = list(_sealed(cipher, ids, some, workspace=workspace, gallery=gallery, space=space))
            # The repository of people adds one at a time; its tables take a thousand.
            connection = await unit.get(SqlConnection)
            await connection.execute(insert(PEOPLE), [_person(one, personal) for one in made])
            await connection.execute(insert(DATA_KEYS), [_key(one) for one in made])
            await (await unit.get(ReferenceRepository)).add(made)
            await (await unit.get(Transaction)).commit()
            references.extend(one.reference.id for one in made)
    return gallery, references


def _sealed(
    cipher: Cipher,
    ids: IdGenerator,
    vectors: _Vectors,
    *,
    workspace: WorkspaceId,
    gallery: GalleryId,
    space: EmbeddingSpace,
) -> Iterator[NewReference]:
    for vector in vectors:
        key: WrappedKey = cipher.new_key(DataKeyId(ids.new()), workspace=workspace)
        reference = Reference(
            id=ReferenceId(ids.new()),
            workspace=workspace,
            gallery=gallery,
            person=PersonId(ids.new()),
            space=space.id,
            quality=Quality(0.9, ()),
            box=Box(50.0, 50.0, 200.0, 200.0),
            filename=None,
            image_key=None,
            image_type=None,
            searchable=True,
            created_at=datetime.now(UTC),
        )
        template = Embedding(vector, space.id).to_bytes()
        place = template_place(workspace, reference.id)
        yield NewReference(reference=reference, key=key, template=cipher.seal(template, key=key, place=place))


def _person(made: NewReference, personal: PersonalFields) -> dict[str, object]:
    reference = made.reference
    person = Person(
        id=reference.person,
        workspace=reference.workspace,
        gallery=reference.gallery,
        external_id=f"person-{reference.person}",
        metadata={},
        created_at=reference.created_at,
        updated_at=reference.created_at,
        version=1,
    )
    return {
        "workspace_id": person.workspace,
        "id": person.id,
        "gallery_id": person.gallery,
        "data_key_id": made.key.id,
        "created_at": person.created_at,
        "updated_at": person.updated_at,
        "version": person.version,
        **personal.of_person(person, made.key),
    }


def _key(made: NewReference) -> dict[str, object]:
    return {
        "workspace_id": made.key.workspace,
        "person_id": made.reference.person,
        "id": made.key.id,
        "wrapped": made.key.wrapped,
    }


async def settled(database: Database) -> None:
    """Do what PostgreSQL does by itself within a minute or so, lest it happen while something is measured."""
    async with database.reads.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("VACUUM (ANALYZE)", timeout=120)


def _face(embedding: Embedding) -> Face:
    landmarks = Landmarks(*(Point(x, y) for x, y in ((100, 100), (150, 100), (125, 130), (105, 155), (145, 155))))
    return Face(
        box=Box(50.0, 50.0, 200.0, 200.0),
        landmarks=landmarks,
        confidence=0.9,
        pose=pose_of(landmarks),
        quality=Quality(0.9, ()),
        embedding=embedding,
    )
