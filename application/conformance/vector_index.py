"""What every vector index promises."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from typing import ClassVar
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from application.conformance.contract import Contract
from application.ports.errors import PortUnavailable
from application.ports.vector_index import Entry, Neighbour, VectorIndex
from domain.embedding import Embedding, EmbeddingSpace, SpaceId
from domain.enrolment import ReferenceId
from domain.errors import SpaceMismatch
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.similarity import similarities

SPACE = EmbeddingSpace(model="conformance@1", digest="c0" * 32, dimension=32)
"""The space of the index that a contract test gives."""

TOLERANCE = 1e-3
"""How far a similarity may be from the exact one."""

Galleries = tuple[GalleryId, GalleryId]
"""Two that are the test's own."""

RawCount = Callable[[Sequence[ReferenceId]], Awaitable[int]]
"""How many of these references the storage behind an index holds, in whatever gallery."""


async def walked(index: VectorIndex, gallery: GalleryId) -> list[Entry]:
    """Return all entries of a gallery."""
    return [one async for one in index.entries(gallery)]


_CALLS: dict[str, Callable[[VectorIndex, Entry], Awaitable[object]]] = {
    "search": lambda index, one: index.search(one.embedding, gallery=one.gallery, people=1),
    "search for several": lambda index, one: index.search(one.embedding, gallery=one.gallery, people=3, per_person=3),
    "search among some": lambda index, one: index.search(
        one.embedding, gallery=one.gallery, people=1, among=[one.person]
    ),
    "upsert": lambda index, one: index.upsert([one]),
    "remove": lambda index, one: index.remove([one.reference]),
    "entries": lambda index, one: walked(index, one.gallery),
    "clear": lambda index, one: index.clear(one.gallery),
}


class VectorIndexContract(Contract):
    """Give `index`: an index of the space `SPACE`, and `unavailable`: one whose backend is gone.

    The index may hold other data, and others may use it meanwhile: each test has galleries and references of its
    own, looks at nothing else, and clears them when it ends.
    """

    recall: ClassVar[float] = 0.95
    """Of how many probes among 5,000 references the exact first must come first; in 0..1."""

    can_be_unavailable: ClassVar[bool] = True
    """False for an index in this process, which cannot be out of reach; `unavailable` is not asked for then."""

    patience: ClassVar[float] = 30.0
    """Seconds in which any call to a backend that is gone must have ended."""

    @pytest.fixture
    async def index(self) -> VectorIndex:
        """Return the index, prepared as the service does it at its start."""
        raise NotImplementedError("give your contract test the fixture `index`")

    @pytest.fixture
    async def unavailable(self) -> VectorIndex | None:
        """Return an index whose server is not there, or was there and has gone."""
        if self.can_be_unavailable:
            raise NotImplementedError("give the fixture `unavailable`, or declare `can_be_unavailable = False`")
        return None

    @pytest.fixture
    async def raw_count(self) -> RawCount | None:
        """Return a function that counts behind the port; None: nobody can look there."""
        return None

    @pytest.fixture
    def galleries(self) -> Galleries:
        """Return two ids that no test had before."""
        return GalleryId(uuid4()), GalleryId(uuid4())

    @pytest.fixture(autouse=True)
    async def _cleared(self, index: VectorIndex, galleries: Galleries) -> AsyncIterator[None]:
        yield
        for gallery in galleries:
            await index.clear(gallery)

    @pytest.fixture
    def gallery(self, galleries: Galleries) -> GalleryId:
        return galleries[0]

    @pytest.fixture
    def other(self, galleries: Galleries) -> GalleryId:
        return galleries[1]

    # ------------------------------------------------------------------------------------------------- the order

    async def test_the_order_is_that_of_comparing_with_everyone(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries = [entry(vector, gallery) for vector in vectors(300)]
        await index.upsert(entries)
        for probe in vectors(10, seed=1):
            found = await index.search(embedding(probe), gallery=gallery, people=20)
            assert_neighbours(found, probe, entries, brute_force(probe, entries)[:20])

    async def test_the_first_among_thousands_is_the_exact_one(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries, probes = crowd(gallery, people=1000, each=5, probes=100)
        await filled(index, entries)
        everybody = np.stack([one.embedding.vector for one in entries])
        place = {reference: number for number, reference in enumerate(references(entries))}
        first = []
        for probe in probes:
            [found] = await index.search(embedding(probe), gallery=gallery, people=1)
            cosines = everybody @ probe
            first.append(cosines[place[found.reference]] >= cosines.max() - TOLERANCE)
        assert np.mean(first) >= self.recall

    async def test_fewer_are_found_where_there_are_fewer(self, index: VectorIndex, gallery: GalleryId) -> None:
        await index.upsert([entry(vector, gallery) for vector in vectors(3)])
        assert len(await index.search(embedding(axis(0)), gallery=gallery, people=100)) == 3

    async def test_similarities_reach_from_minus_one_to_one(self, index: VectorIndex, gallery: GalleryId) -> None:
        same, orthogonal, opposite = entry(axis(0), gallery), entry(axis(1), gallery), entry(-axis(0), gallery)
        await index.upsert([opposite, same, orthogonal])
        found = await index.search(embedding(axis(0)), gallery=gallery, people=3)
        assert references(found) == references([same, orthogonal, opposite])
        assert [neighbour.similarity for neighbour in found] == pytest.approx([1.0, 0.0, -1.0], abs=TOLERANCE)

    async def test_ties_are_ordered_by_reference(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries = [entry(axis(0), gallery) for _ in range(200)]
        await index.upsert(shuffled(entries))
        found = await index.search(embedding(axis(0)), gallery=gallery, people=10)
        assert references(found) == references(entries[:10])

    async def test_ties_that_begin_behind_others_are_ordered_by_reference(
        self, index: VectorIndex, gallery: GalleryId
    ) -> None:
        ahead = [entry(vector, gallery) for vector in around(axis(0), 5)]
        tied = [entry(vectors(1)[0], gallery) for _ in range(200)]
        await index.upsert(shuffled([*tied, *ahead]))
        found = await index.search(embedding(axis(0)), gallery=gallery, people=15)
        assert {one.reference for one in found[:5]} == set(references(ahead))
        assert references(found[5:]) == references(tied[:10])

    async def test_ties_of_one_person_are_ordered_by_reference(self, index: VectorIndex, gallery: GalleryId) -> None:
        people = [PersonId(new_id()) for _ in range(3)]
        copies = [entry(axis(place), gallery, person=person) for place, person in enumerate(people) for _ in range(100)]
        await index.upsert(shuffled(copies))
        probe = embedding(axis(0) * 0.8 + axis(1) * 0.6)
        assert references(await index.search(probe, gallery=gallery, people=2)) == references([copies[0], copies[100]])
        found = await index.search(probe, gallery=gallery, people=2, per_person=3)
        assert references(found) == references([*copies[:3], *copies[100:103]])

    # ------------------------------------------------------------------------------------------------- galleries

    async def test_an_unknown_gallery_is_an_empty_one(
        self, index: VectorIndex, gallery: GalleryId, other: GalleryId
    ) -> None:
        await index.upsert([entry(axis(0), gallery)])
        assert list(await index.search(embedding(axis(0)), gallery=other, people=5)) == []
        assert list(await index.search(embedding(axis(0)), gallery=other, people=5, per_person=3)) == []
        assert await walked(index, other) == []
        await index.clear(other)
        assert len(await walked(index, gallery)) == 1

    async def test_galleries_do_not_mix(self, index: VectorIndex, galleries: Galleries) -> None:
        of = {gallery: [entry(vector, gallery) for vector in vectors(50)] for gallery in galleries}
        await index.upsert([one for entries in of.values() for one in entries])
        for gallery, entries in of.items():
            found = await index.search(embedding(vectors(1)[0]), gallery=gallery, people=100)
            assert set(references(found)) == set(references(entries))
            assert references(await walked(index, gallery)) == references(entries)

    # ---------------------------------------------------------------------------------------------------- writing

    async def test_upsert_twice_keeps_one(self, index: VectorIndex, gallery: GalleryId) -> None:
        one = entry(axis(0), gallery)
        await index.upsert([one])
        await index.upsert([one])
        assert len(await index.search(embedding(axis(0)), gallery=gallery, people=5, per_person=5)) == 1
        assert references(await walked(index, gallery)) == [one.reference]

    async def test_upsert_again_replaces_vector_person_and_gallery(
        self, index: VectorIndex, gallery: GalleryId, other: GalleryId
    ) -> None:
        before = entry(axis(0), gallery)
        after = entry(axis(1), other, reference=before.reference)
        await index.upsert([before])
        await index.upsert([after])
        assert list(await index.search(embedding(axis(0)), gallery=gallery, people=5)) == []
        assert list(await index.search(embedding(axis(1)), gallery=other, people=5, among=[before.person])) == []
        [found] = await index.search(embedding(axis(1)), gallery=other, people=5)
        assert (found.reference, found.person) == (after.reference, after.person)
        assert found.similarity == pytest.approx(1.0, abs=TOLERANCE)

    async def test_the_last_of_duplicates_counts(self, index: VectorIndex, gallery: GalleryId) -> None:
        first = entry(axis(0), gallery)
        last = entry(axis(1), gallery, reference=first.reference)
        await index.upsert([first, entry(axis(2), gallery), last])
        assert first.person not in {one.person for one in await walked(index, gallery)}
        found = await index.search(embedding(axis(1)), gallery=gallery, people=1)
        assert found[0].person == last.person

    async def test_nothing_is_written_and_removed_without_a_word(self, index: VectorIndex, gallery: GalleryId) -> None:
        await index.upsert([])
        await index.remove([])
        assert await walked(index, gallery) == []

    async def test_a_removed_reference_is_not_found_again(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries = [entry(vector, gallery) for vector in vectors(20)]
        await index.upsert(entries)
        gone = references([entries[3], entries[7]])
        await index.remove(gone)
        found = await index.search(entries[3].embedding, gallery=gallery, people=50)
        assert set(references(found)) == set(references(entries)) - set(gone)

    async def test_removing_what_is_not_there_is_passed_over(self, index: VectorIndex, gallery: GalleryId) -> None:
        one = entry(axis(0), gallery)
        await index.upsert([one])
        await index.remove([ReferenceId(new_id()), one.reference, one.reference])
        await index.remove([one.reference])
        assert await walked(index, gallery) == []

    async def test_a_removed_reference_can_be_written_again(self, index: VectorIndex, gallery: GalleryId) -> None:
        one = entry(axis(0), gallery)
        for _ in range(3):
            await index.upsert([one])
            await index.remove([one.reference])
        await index.upsert([one])
        assert references(await walked(index, gallery)) == [one.reference]

    async def test_what_was_removed_is_gone_from_behind_too(
        self, index: VectorIndex, raw_count: RawCount | None, gallery: GalleryId, other: GalleryId
    ) -> None:
        if raw_count is None:
            pytest.skip("nobody can look behind this index: it gives no `raw_count`")
        entries = [entry(vector, gallery) for vector in vectors(20)]
        written = references(entries)
        await index.upsert(entries)
        assert await raw_count(written) == 20
        await index.upsert([entry(axis(0), other, reference=one) for one in written[:5]])
        assert await raw_count(written) == 20
        await index.remove(written[10:])
        assert await raw_count(written) == 10
        await index.clear(gallery)
        assert await raw_count(written) == 5
        await index.clear(other)
        assert await raw_count(written) == 0

    # ----------------------------------------------------------------------------------------------------- people

    async def test_a_person_counts_once(self, index: VectorIndex, gallery: GalleryId) -> None:
        person = PersonId(new_id())
        near = [entry(vector, gallery, person=person) for vector in around(axis(0), 5)]
        far = entry(axis(1), gallery)
        await index.upsert([*near, far])
        found = await index.search(embedding(axis(0)), gallery=gallery, people=2)
        expected = [brute_force(axis(0), near)[0], *brute_force(axis(0), [far])]
        assert_neighbours(found, axis(0), [*near, far], expected)

    async def test_many_references_of_one_person_do_not_crowd_out_others(
        self, index: VectorIndex, gallery: GalleryId
    ) -> None:
        crowding = PersonId(new_id())
        crowded = [entry(vector, gallery, person=crowding) for vector in around(axis(0), 1000)]
        others = [entry(vector, gallery) for vector in around(axis(1), 10)]
        await index.upsert([*crowded, *others])
        found = await index.search(embedding(axis(0)), gallery=gallery, people=11)
        assert found[0].person == crowding
        assert {one.person for one in found} == {crowding, *(other.person for other in others)}

    async def test_many_people_with_many_references_do_not_crowd_out_one(
        self, index: VectorIndex, gallery: GalleryId
    ) -> None:
        # Each one fills a search of its own: an index that looks again a fixed number of times runs out of times.
        crowding = [PersonId(new_id()) for _ in range(12)]
        crowded = [
            entry(vector, gallery, person=person)
            for place, person in enumerate(crowding)
            for vector in around(axis(0) + axis(place + 1) * (0.1 + 0.05 * place), 80, seed=place)
        ]
        alone = entry(-axis(0), gallery)
        await index.upsert(shuffled([*crowded, alone]))
        found = await index.search(embedding(axis(0)), gallery=gallery, people=13)
        assert {one.person for one in found} == {*crowding, alone.person}
        assert found[-1].reference == alone.reference

    async def test_several_references_of_each_person_can_be_wanted(
        self, index: VectorIndex, gallery: GalleryId
    ) -> None:
        people = [PersonId(new_id()) for _ in range(3)]
        entries = [
            entry(vector, gallery, person=person)
            for place, person in enumerate(people)
            for vector in [*around(axis(place), 4, seed=place), *around(-axis(0), 1, seed=place)]
        ]
        await index.upsert(entries)
        # Nearest to two of the three people; the far references of those two count, the third person's near ones not.
        probe = axis(0) * 0.8 + axis(1) * 0.6
        ranked = [one for one in brute_force(probe, entries) if one[0].person in people[:2]]
        for per_person in (2, 3, 5, 50):
            found = await index.search(embedding(probe), gallery=gallery, people=2, per_person=per_person)
            assert_neighbours(found, probe, entries, at_most(per_person, ranked))

    async def test_a_search_among_people_finds_no_others(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries = [entry(vector, gallery) for vector in vectors(100)]
        await index.upsert(entries)
        probe = entries[0].embedding.vector
        ranked = brute_force(probe, entries)
        among = [one.person for one, _ in ranked[50:60]]
        found = await index.search(
            embedding(probe), gallery=gallery, people=5, among=[*among, among[0], PersonId(new_id())]
        )
        assert_neighbours(found, probe, entries, ranked[50:55])

    async def test_a_search_among_people_takes_several_of_each(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries, [probe] = crowd(gallery, people=20, each=5, probes=1)
        await index.upsert(entries)
        among = list(dict.fromkeys(one.person for one, _ in brute_force(probe, entries)))[5:10]
        ranked = [one for one in brute_force(probe, entries) if one[0].person in among]
        found = await index.search(embedding(probe), gallery=gallery, people=9, per_person=3, among=among)
        assert_neighbours(found, probe, entries, at_most(3, ranked))

    async def test_a_search_among_people_stays_in_the_gallery(
        self, index: VectorIndex, gallery: GalleryId, other: GalleryId
    ) -> None:
        ours, theirs = entry(axis(0), gallery), entry(axis(0), other)
        await index.upsert([ours, theirs])
        found = await index.search(embedding(axis(0)), gallery=gallery, people=5, among=[ours.person, theirs.person])
        assert references(found) == [ours.reference]

    async def test_one_person_in_two_galleries_is_one_in_each(
        self, index: VectorIndex, gallery: GalleryId, other: GalleryId
    ) -> None:
        ours = entry(axis(0), gallery)
        theirs = entry(axis(0), other, person=ours.person)
        await index.upsert([ours, theirs])
        found = await index.search(embedding(axis(0)), gallery=gallery, people=5, per_person=5)
        assert references(found) == [ours.reference]

    async def test_a_search_among_nobody_finds_nobody(self, index: VectorIndex, gallery: GalleryId) -> None:
        await index.upsert([entry(axis(0), gallery)])
        assert list(await index.search(embedding(axis(0)), gallery=gallery, people=5, among=[])) == []

    # ----------------------------------------------------------------------------------------------------- refusals

    async def test_another_space_is_refused(self, index: VectorIndex, gallery: GalleryId) -> None:
        foreign = Embedding(axis(0), SpaceId("other@1:000000000000"))
        with pytest.raises(SpaceMismatch):
            await index.search(foreign, gallery=gallery, people=1)
        with pytest.raises(SpaceMismatch):
            await index.upsert([entry(axis(0), gallery), entry_of(foreign, gallery)])
        assert await walked(index, gallery) == []

    async def test_another_dimension_is_refused(self, index: VectorIndex, gallery: GalleryId) -> None:
        short = Embedding(axis(0)[: SPACE.dimension // 2], SPACE.id)
        with pytest.raises(SpaceMismatch):
            await index.search(short, gallery=gallery, people=1)
        with pytest.raises(SpaceMismatch):
            await index.upsert([entry(axis(0), gallery), entry_of(short, gallery)])
        assert await walked(index, gallery) == []

    async def test_a_backend_that_is_gone_is_unavailable(
        self, unavailable: VectorIndex | None, gallery: GalleryId
    ) -> None:
        if unavailable is None:
            pytest.skip("an index in this process cannot be out of reach")
        for name, call in _CALLS.items():
            async with asyncio.timeout(self.patience):
                with pytest.raises(PortUnavailable) as told:
                    await call(unavailable, entry(axis(0), gallery))
            assert told.value.port == "vector_index", name

    # ------------------------------------------------------------------------------------------ walking and clearing

    async def test_entries_come_by_reference_as_they_were_written(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries = [entry(vector, gallery) for vector in vectors(2500)]
        await filled(index, entries[::-1])
        assert_entries(await walked(index, gallery), entries)

    async def test_ids_of_every_kind_keep_their_order(self, index: VectorIndex, gallery: GalleryId) -> None:
        # The least and the greatest, of version 4, of version 7, and those whose first bit or last digits differ.
        ids = [
            UUID(int=0),
            UUID(int=1),
            UUID(int=(1 << 127) - 1),
            UUID(int=1 << 127),
            UUID(int=(1 << 128) - 2),
            UUID(int=(1 << 128) - 1),
            *(uuid4() for _ in range(5)),
            *(UUID(int=(0x0198 << 112) + (7 << 76) + (2 << 62) + secrets.randbits(60)) for _ in range(5)),
        ]
        entries = [
            entry(axis(0), gallery, reference=ReferenceId(one), person=PersonId(other))
            for one, other in zip(sorted(ids), sorted(ids, reverse=True), strict=True)
        ]
        await index.upsert(shuffled(entries))
        assert_entries(await walked(index, gallery), entries)
        found = await index.search(embedding(axis(0)), gallery=gallery, people=len(ids), per_person=2)
        assert [(one.reference, one.person) for one in found] == [(one.reference, one.person) for one in entries]
        nil, greatest = entries[-1].person, entries[0].person
        found = await index.search(embedding(axis(0)), gallery=gallery, people=9, among=[nil, greatest])
        assert references(found) == references([entries[0], entries[-1]])
        await index.remove(references([entries[0], entries[-1]]))
        assert references(await walked(index, gallery)) == references(entries[1:-1])

    async def test_clearing_leaves_nothing_and_no_other_gallery_less(
        self, index: VectorIndex, gallery: GalleryId, other: GalleryId
    ) -> None:
        elsewhere = entry(axis(0), other)
        await index.upsert([*(entry(vector, gallery) for vector in vectors(100)), elsewhere])
        await index.clear(gallery)
        await index.clear(gallery)
        assert await walked(index, gallery) == []
        assert list(await index.search(embedding(axis(0)), gallery=gallery, people=5)) == []
        assert references(await walked(index, other)) == [elsewhere.reference]

    async def test_a_cleared_gallery_can_be_filled_again(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries = [entry(vector, gallery) for vector in vectors(10)]
        await index.upsert(entries)
        await index.clear(gallery)
        await index.upsert(entries[:5])
        assert len(await index.search(embedding(axis(0)), gallery=gallery, people=50)) == 5

    # ------------------------------------------------------------------------------------------------- side by side

    async def test_writers_side_by_side_lose_nothing(self, index: VectorIndex, gallery: GalleryId) -> None:
        entries = [entry(vector, gallery) for vector in vectors(200)]
        await asyncio.gather(*(index.upsert(entries[begin::8]) for begin in range(8)))
        assert references(await walked(index, gallery)) == references(entries)

    async def test_writers_of_the_same_references_do_not_stand_in_each_others_way(
        self, index: VectorIndex, gallery: GalleryId
    ) -> None:
        entries = [entry(vector, gallery) for vector in vectors(50)]
        orders = [entries, entries[::-1]] * 3
        await asyncio.gather(
            *(index.upsert(order) for order in orders),
            *(index.remove(references(order)) for order in orders),
        )
        await index.upsert(entries)
        assert references(await walked(index, gallery)) == references(entries)

    async def test_readers_beside_writers_find_what_nobody_touches(
        self, index: VectorIndex, gallery: GalleryId
    ) -> None:
        still = [entry(vector, gallery) for vector in around(axis(0), 30)]
        moving = [entry(vector, gallery) for vector in around(axis(1), 30)]
        await index.upsert(still)

        async def write() -> None:
            for _ in range(5):
                await index.upsert(moving)
                await index.remove(references(moving))

        async def read() -> None:
            for _ in range(10):
                found = await index.search(embedding(axis(0)), gallery=gallery, people=30)
                assert set(references(found)) == set(references(still))

        await asyncio.gather(write(), *(read() for _ in range(4)))
        assert references(await walked(index, gallery)) == references(still)

    async def test_a_search_sees_what_was_written_before(self, index: VectorIndex, gallery: GalleryId) -> None:
        for vector in vectors(20):
            one = entry(vector, gallery)
            await index.upsert([one])
            [found] = await index.search(one.embedding, gallery=gallery, people=1)
            assert found.reference == one.reference
            await index.remove([one.reference])
            assert list(await index.search(one.embedding, gallery=gallery, people=1)) == []


Ranked = tuple[Entry, float]

_ids = count((secrets.randbits(64) << 64) + 1)


def new_id() -> UUID:
    """Return an id that is greater than those before in this process, and that no other process makes."""
    return UUID(int=next(_ids))


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
    return [_unit(centre / np.linalg.norm(centre) + one) for one in noise]


def crowd(gallery: GalleryId, *, people: int, each: int, probes: int) -> tuple[list[Entry], list[NDArray[np.float32]]]:
    """Return people with several references each, as faces lie in a space, and one more picture of the first ones."""
    entries, more = [], []
    for number, centre in enumerate(vectors(people)):
        person = PersonId(new_id())
        *enrolled, probe = around(centre, each + 1, seed=number)
        entries += [entry(vector, gallery, person=person) for vector in enrolled]
        more.append(probe)
    return entries, more[:probes]


def shuffled(entries: Sequence[Entry]) -> list[Entry]:
    """Return them in another order, the same each time."""
    return [entries[place] for place in np.random.default_rng(2).permutation(len(entries))]


def embedding(vector: NDArray[np.floating]) -> Embedding:
    """Return it as one of the space."""
    return Embedding.normalised(vector, SPACE.id)


def entry(
    vector: NDArray[np.floating],
    gallery: GalleryId,
    *,
    reference: ReferenceId | None = None,
    person: PersonId | None = None,
) -> Entry:
    """Return an entry, of a person of its own where none is given."""
    return Entry(
        reference=reference or ReferenceId(new_id()),
        person=person or PersonId(new_id()),
        gallery=gallery,
        embedding=embedding(vector),
    )


def entry_of(embedding: Embedding, gallery: GalleryId) -> Entry:
    """Return an entry with this embedding, whatever its space."""
    return Entry(reference=ReferenceId(new_id()), person=PersonId(new_id()), gallery=gallery, embedding=embedding)


async def filled(index: VectorIndex, entries: Sequence[Entry]) -> None:
    """Write many, in parts as the service does: a backend may take as long for each as its timeout lets it."""
    for begin in range(0, len(entries), 500):
        await index.upsert(entries[begin : begin + 500])


def references(some: Sequence[Entry] | Sequence[Neighbour]) -> list[ReferenceId]:
    """Return their ids, in their order."""
    return [one.reference for one in some]


def brute_force(probe: NDArray[np.floating], entries: Sequence[Entry]) -> list[Ranked]:
    """Return all entries with their exact similarity, best first, ties by reference."""
    cosines = similarities(embedding(probe), [one.embedding for one in entries])
    ranked = zip(entries, map(float, cosines), strict=True)
    return sorted(ranked, key=lambda one: (-one[1], one[0].reference))


def at_most(per_person: int, ranked: Sequence[Ranked]) -> list[Ranked]:
    """Return the first ones of each person, in their order."""
    kept: defaultdict[PersonId, list[Ranked]] = defaultdict(list)
    for one in ranked:
        kept[one[0].person].append(one)
    wanted = {one.reference for theirs in kept.values() for one, _ in theirs[:per_person]}
    return [one for one in ranked if one[0].reference in wanted]


def assert_neighbours(
    found: Sequence[Neighbour],
    probe: NDArray[np.floating],
    entries: Sequence[Entry],
    expected: Sequence[Ranked],
) -> None:
    """Hold what was found against what was expected: people, similarities and order.

    Whose similarities lie within the tolerance of each other may come in each other's place.
    """
    exact = {one.reference: (one.person, cosine) for one, cosine in brute_force(probe, entries)}
    assert len({one.reference for one in found}) == len(found) == len(expected)
    assert [one.person for one in found] == [exact[one.reference][0] for one in found]
    assert [one.similarity for one in found] == pytest.approx([exact[one.reference][1] for one in found], abs=TOLERANCE)
    assert [one.similarity for one in found] == pytest.approx([cosine for _, cosine in expected], abs=TOLERANCE)
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)


def assert_entries(found: Sequence[Entry], expected: Sequence[Entry]) -> None:
    """Hold what was walked through against what was written: all of it, in the same order."""
    assert [(one.reference, one.person, one.gallery) for one in found] == [
        (one.reference, one.person, one.gallery) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.embedding.vector, other.embedding.vector, rtol=0.0, atol=TOLERANCE)


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit
