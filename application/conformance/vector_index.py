"""What every vector index promises."""

import asyncio
from collections.abc import Sequence
from itertools import count
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from application.conformance.contract import Contract
from application.ports.vector_index import Entry, Neighbour, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace, SpaceId
from domain.enrolment import ReferenceId
from domain.errors import SpaceMismatch
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.similarity import similarities

SPACE = EmbeddingSpace(model="conformance@1", digest="c0" * 32, dimension=32)
"""The space of the index that a contract test gives."""

GALLERY, OTHER_GALLERY = GalleryId(UUID(int=1 << 64)), GalleryId(UUID(int=2 << 64))

TOLERANCE = 1e-3
"""How far a similarity may be from the exact one."""


class VectorIndexContract(Contract):
    """Give `index`: an empty index of the space `SPACE`, which nobody else uses meanwhile."""

    @pytest.fixture
    async def index(self) -> VectorIndex:
        """Return the index, prepared as the service does it at its start."""
        raise NotImplementedError("give your contract test the fixture `index`")

    async def test_the_order_is_that_of_comparing_with_everyone(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(300)]
        await index.upsert(entries)
        for probe in vectors(10, seed=1):
            found = await index.search(embedding(probe), gallery=GALLERY, people=20)
            assert_neighbours(found, brute_force(probe, entries)[:20])

    async def test_fewer_are_found_where_there_are_fewer(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(3)]
        await index.upsert(entries)
        assert len(await index.search(embedding(axis(0)), gallery=GALLERY, people=100)) == 3

    async def test_similarities_reach_from_minus_one_to_one(self, index: VectorIndex) -> None:
        same, orthogonal, opposite = entry(axis(0)), entry(axis(1)), entry(-axis(0))
        await index.upsert([opposite, same, orthogonal])
        found = await index.search(embedding(axis(0)), gallery=GALLERY, people=3)
        assert [neighbour.reference for neighbour in found] == [
            same.reference,
            orthogonal.reference,
            opposite.reference,
        ]
        assert [neighbour.similarity for neighbour in found] == pytest.approx([1.0, 0.0, -1.0], abs=TOLERANCE)

    async def test_ties_are_ordered_by_reference(self, index: VectorIndex) -> None:
        entries = [entry(axis(0)) for _ in range(200)]
        shuffled = [entries[place] for place in np.random.default_rng(2).permutation(len(entries))]
        await index.upsert(shuffled)
        found = await index.search(embedding(axis(0)), gallery=GALLERY, people=10)
        assert [neighbour.reference for neighbour in found] == [one.reference for one in entries[:10]]

    async def test_an_unknown_gallery_is_an_empty_one(self, index: VectorIndex) -> None:
        await index.upsert([entry(axis(0))])
        assert list(await index.search(embedding(axis(0)), gallery=OTHER_GALLERY, people=5)) == []
        assert await walked(index, OTHER_GALLERY) == []
        await index.clear(OTHER_GALLERY)
        assert len(await walked(index, GALLERY)) == 1

    async def test_galleries_do_not_mix(self, index: VectorIndex) -> None:
        ours = [entry(vector) for vector in vectors(50)]
        theirs = [entry(vector, gallery=OTHER_GALLERY) for vector in vectors(50)]
        await index.upsert([*ours, *theirs])
        for gallery, entries in ((GALLERY, ours), (OTHER_GALLERY, theirs)):
            found = await index.search(ours[0].embedding, gallery=gallery, people=100)
            assert {neighbour.reference for neighbour in found} == {one.reference for one in entries}
            assert [one.reference for one in await walked(index, gallery)] == [one.reference for one in entries]

    async def test_upsert_twice_keeps_one(self, index: VectorIndex) -> None:
        one = entry(axis(0))
        await index.upsert([one])
        await index.upsert([one])
        assert len(await index.search(embedding(axis(0)), gallery=GALLERY, people=5, per_person=5)) == 1

    async def test_upsert_again_replaces_vector_person_and_gallery(self, index: VectorIndex) -> None:
        before = entry(axis(0))
        after = entry(axis(1), reference=before.reference, gallery=OTHER_GALLERY)
        await index.upsert([before])
        await index.upsert([after])
        assert list(await index.search(embedding(axis(0)), gallery=GALLERY, people=5)) == []
        [found] = await index.search(embedding(axis(1)), gallery=OTHER_GALLERY, people=5)
        assert (found.reference, found.person) == (after.reference, after.person)
        assert found.similarity == pytest.approx(1.0, abs=TOLERANCE)

    async def test_the_last_of_duplicates_counts(self, index: VectorIndex) -> None:
        first = entry(axis(0))
        last = entry(axis(1), reference=first.reference)
        await index.upsert([first, entry(axis(2)), last])
        assert [one.person for one in await walked(index, GALLERY)].count(first.person) == 0
        found = await index.search(embedding(axis(1)), gallery=GALLERY, people=1)
        assert found[0].person == last.person

    async def test_nothing_is_written_and_removed_without_a_word(self, index: VectorIndex) -> None:
        await index.upsert([])
        await index.remove([])
        assert await walked(index, GALLERY) == []

    async def test_a_removed_reference_is_not_found_again(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(20)]
        await index.upsert(entries)
        await index.remove([entries[3].reference, entries[7].reference])
        found = await index.search(entries[3].embedding, gallery=GALLERY, people=50)
        assert {one.reference for one in found} == {one.reference for one in entries} - {
            entries[3].reference,
            entries[7].reference,
        }

    async def test_removing_what_is_not_there_is_passed_over(self, index: VectorIndex) -> None:
        one = entry(axis(0))
        await index.upsert([one])
        await index.remove([ReferenceId(new_id()), one.reference, one.reference])
        await index.remove([one.reference])
        assert await walked(index, GALLERY) == []

    async def test_a_person_counts_once(self, index: VectorIndex) -> None:
        person = PersonId(new_id())
        near = [entry(vector, person=person) for vector in around(axis(0), 5)]
        far = entry(axis(1))
        await index.upsert([*near, far])
        found = await index.search(embedding(axis(0)), gallery=GALLERY, people=2)
        assert_neighbours(found, [brute_force(axis(0), near)[0], *brute_force(axis(0), [far])])

    async def test_many_references_of_one_person_do_not_crowd_out_others(self, index: VectorIndex) -> None:
        crowd = PersonId(new_id())
        crowded = [entry(vector, person=crowd) for vector in around(axis(0), 1000)]
        others = [entry(vector) for vector in around(axis(1), 10)]
        await index.upsert([*crowded, *others])
        found = await index.search(embedding(axis(0)), gallery=GALLERY, people=11)
        assert found[0].person == crowd
        assert {one.person for one in found} == {crowd, *(other.person for other in others)}

    async def test_several_references_of_each_person_can_be_wanted(self, index: VectorIndex) -> None:
        people = [PersonId(new_id()) for _ in range(3)]
        entries = [
            entry(vector, person=person)
            for place, person in enumerate(people)
            for vector in [*around(axis(place), 4, seed=place), *around(-axis(0), 1, seed=place)]
        ]
        await index.upsert(entries)
        # Nearest to two of the three people; the far references of those two count, the third person's near ones not.
        probe = axis(0) * 0.8 + axis(1) * 0.6
        found = await index.search(embedding(probe), gallery=GALLERY, people=2, per_person=5)
        of_two = [one for one in entries if one.person in people[:2]]
        assert_neighbours(found, brute_force(probe, of_two))
        found = await index.search(embedding(probe), gallery=GALLERY, people=2, per_person=3)
        ranked = brute_force(probe, of_two)
        best = {id(one) for person in people[:2] for one in [one for one in ranked if one[0].person == person][:3]}
        assert_neighbours(found, [one for one in ranked if id(one) in best])

    async def test_a_search_among_people_finds_no_others(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(100)]
        await index.upsert(entries)
        ranked = brute_force(entries[0].embedding.vector, entries)
        among = [one.person for one, _ in ranked[50:60]]
        found = await index.search(entries[0].embedding, gallery=GALLERY, people=5, among=[*among, PersonId(new_id())])
        assert_neighbours(found, ranked[50:55])

    async def test_a_search_among_people_stays_in_the_gallery(self, index: VectorIndex) -> None:
        ours, theirs = entry(axis(0)), entry(axis(0), gallery=OTHER_GALLERY)
        await index.upsert([ours, theirs])
        found = await index.search(embedding(axis(0)), gallery=GALLERY, people=5, among=[ours.person, theirs.person])
        assert [one.reference for one in found] == [ours.reference]

    async def test_a_search_among_nobody_finds_nobody(self, index: VectorIndex) -> None:
        await index.upsert([entry(axis(0))])
        assert list(await index.search(embedding(axis(0)), gallery=GALLERY, people=5, among=[])) == []

    async def test_another_space_is_refused(self, index: VectorIndex) -> None:
        foreign = Embedding(axis(0), SpaceId("other@1:000000000000"))
        with pytest.raises(SpaceMismatch):
            await index.search(foreign, gallery=GALLERY, people=1)
        with pytest.raises(SpaceMismatch):
            await index.upsert([entry(axis(0)), entry_of(foreign)])
        assert await walked(index, GALLERY) == []

    async def test_another_dimension_is_refused(self, index: VectorIndex) -> None:
        short = Embedding(axis(0)[: SPACE.dimension // 2], SPACE.id)
        with pytest.raises(SpaceMismatch):
            await index.search(short, gallery=GALLERY, people=1)
        with pytest.raises(SpaceMismatch):
            await index.upsert([entry(axis(0)), entry_of(short)])
        assert await walked(index, GALLERY) == []

    async def test_entries_come_by_reference_as_they_were_written(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(2500)]
        await index.upsert(entries[::-1])
        found = await walked(index, GALLERY)
        assert [(one.reference, one.person, one.gallery) for one in found] == [
            (one.reference, one.person, one.gallery) for one in entries
        ]
        for one, other in zip(found, entries, strict=True):
            assert np.allclose(one.embedding.vector, other.embedding.vector, atol=TOLERANCE)

    async def test_clearing_leaves_nothing_and_no_other_gallery_less(self, index: VectorIndex) -> None:
        other = entry(axis(0), gallery=OTHER_GALLERY)
        await index.upsert([*(entry(vector) for vector in vectors(100)), other])
        await index.clear(GALLERY)
        await index.clear(GALLERY)
        assert await walked(index, GALLERY) == []
        assert list(await index.search(embedding(axis(0)), gallery=GALLERY, people=5)) == []
        assert [one.reference for one in await walked(index, OTHER_GALLERY)] == [other.reference]

    async def test_a_cleared_gallery_can_be_filled_again(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(10)]
        await index.upsert(entries)
        await index.clear(GALLERY)
        await index.upsert(entries[:5])
        assert len(await index.search(embedding(axis(0)), gallery=GALLERY, people=50)) == 5

    async def test_writers_side_by_side_lose_nothing(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(200)]
        parts = [entries[begin::8] for begin in range(8)]
        await asyncio.gather(*(index.upsert(part) for part in parts))
        assert len(await walked(index, GALLERY)) == len(entries)

    async def test_writers_of_the_same_references_do_not_stand_in_each_others_way(self, index: VectorIndex) -> None:
        entries = [entry(vector) for vector in vectors(50)]
        orders = [entries, entries[::-1]] * 3
        await asyncio.gather(
            *(index.upsert(order) for order in orders),
            *(index.remove([one.reference for one in order]) for order in orders),
        )
        await index.upsert(entries)
        assert len(await walked(index, GALLERY)) == len(entries)

    async def test_a_search_sees_what_was_written_before(self, index: VectorIndex) -> None:
        for vector in vectors(20):
            one = entry(vector)
            await index.upsert([one])
            [found] = await index.search(one.embedding, gallery=GALLERY, people=1)
            assert found.reference == one.reference
            await index.remove([one.reference])
            assert list(await index.search(one.embedding, gallery=GALLERY, people=1)) == []


Ranked = tuple[Entry, float]

_ids = count(1)


def new_id() -> UUID:
    """Return an id that is greater than those before."""
    return UUID(int=(3 << 64) + next(_ids))


def axis(place: int) -> NDArray[np.float32]:
    """Return the unit vector along one axis."""
    unit = np.zeros(SPACE.dimension, dtype=np.float32)
    unit[place] = 1.0
    return unit


def vectors(number: int, *, seed: int = 0) -> list[NDArray[np.float32]]:
    """Return random unit vectors."""
    return [_unit(vector) for vector in np.random.default_rng(seed).normal(size=(number, SPACE.dimension))]


def around(centre: NDArray[np.float32], number: int, *, seed: int = 0) -> list[NDArray[np.float32]]:
    """Return random unit vectors whose cosine with `centre` is about 0.98."""
    noise = np.random.default_rng(seed).normal(size=(number, SPACE.dimension)) * 0.2 / np.sqrt(SPACE.dimension)
    return [_unit(centre + one) for one in noise]


def embedding(vector: NDArray[np.floating]) -> Embedding:
    """Return it as one of the space."""
    return Embedding.normalised(vector, SPACE.id)


def entry(
    vector: NDArray[np.floating],
    *,
    reference: ReferenceId | None = None,
    person: PersonId | None = None,
    gallery: GalleryId = GALLERY,
) -> Entry:
    """Return an entry, of a person of its own where none is given."""
    return Entry(
        reference=reference or ReferenceId(new_id()),
        person=person or PersonId(new_id()),
        gallery=gallery,
        embedding=embedding(vector),
    )


def entry_of(embedding: Embedding) -> Entry:
    """Return an entry with this embedding, whatever its space."""
    return Entry(reference=ReferenceId(new_id()), person=PersonId(new_id()), gallery=GALLERY, embedding=embedding)


def brute_force(probe: NDArray[np.floating], entries: Sequence[Entry]) -> list[Ranked]:
    """Return all entries with their exact similarity, best first, ties by reference."""
    cosines = similarities(embedding(probe), [one.embedding for one in entries])
    ranked = zip(entries, map(float, cosines), strict=True)
    return sorted(ranked, key=lambda one: (-one[1], one[0].reference))


def assert_neighbours(found: Sequence[Neighbour], expected: Sequence[Ranked]) -> None:
    """Hold what was found against what was expected: order, people and similarities."""
    assert [(one.reference, one.person) for one in found] == [(one.reference, one.person) for one, _ in expected]
    assert [one.similarity for one in found] == pytest.approx([cosine for _, cosine in expected], abs=TOLERANCE)


async def walked(index: VectorIndex, gallery: GalleryId) -> list[Entry]:
    """Return all entries of a gallery."""
    return [one async for one in index.entries(gallery)]


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit
