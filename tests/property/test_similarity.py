import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from domain.embedding import UNIT_TOLERANCE, Embedding, SpaceId
from domain.errors import InvalidValue, SpaceMismatch
from domain.similarity import cosine, similarities

SPACE = SpaceId("open@1:000000000000")
OTHER_SPACE = SpaceId("open@2:000000000000")
NUMBERS = st.floats(-100.0, 100.0, width=32)


def vectors(dimension: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, dimension, elements=NUMBERS).filter(lambda vector: np.linalg.norm(vector) > 1e-3)


@st.composite
def embeddings(draw: st.DrawFn, dimension: int = 16) -> Embedding:
    """As long as a model may make them: 1, or as far from it as is tolerated."""
    unit = Embedding.normalised(draw(vectors(dimension)), SPACE).vector.astype(np.float64)
    return Embedding(unit * draw(st.floats(1 - 0.9 * UNIT_TOLERANCE, 1 + 0.9 * UNIT_TOLERANCE)), SPACE)


@given(embeddings(), embeddings())
def test_cosine_is_symmetric_to_the_last_bit(one: Embedding, other: Embedding) -> None:
    assert cosine(one, other) == cosine(other, one)


@given(embeddings(), embeddings())
def test_cosine_lies_between_minus_one_and_one(one: Embedding, other: Embedding) -> None:
    assert -1.0 <= cosine(one, other) <= 1.0


@given(embeddings())
def test_a_vector_is_wholly_like_itself_and_wholly_unlike_its_opposite(one: Embedding) -> None:
    assert cosine(one, one) == 1.0
    assert cosine(one, Embedding(-one.vector, SPACE)) == -1.0


@given(vectors(16), vectors(16), st.floats(0.5, 2.0))
def test_cosine_does_not_depend_on_length(one: NDArray[np.float32], other: NDArray[np.float32], factor: float) -> None:
    probe = Embedding.normalised(other, SPACE)
    before = cosine(Embedding.normalised(one, SPACE), probe)
    after = cosine(Embedding.normalised(one.astype(np.float64) * factor, SPACE), probe)
    assert after == pytest.approx(before, abs=1e-6)


@given(st.data(), st.sampled_from([1, 2, 3, 7, 8, 9, 16, 127, 128, 129, 512]))
def test_a_similarity_does_not_depend_on_who_else_is_looked_at(data: st.DataObject, dimension: int) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    drawn = np.random.default_rng(seed).standard_normal((40, dimension))
    probe, *references = [Embedding.normalised(vector, SPACE) for vector in drawn]
    chosen = data.draw(st.lists(st.integers(0, len(references) - 1), min_size=1, max_size=12))
    together = similarities(probe, references)
    apart = similarities(probe, [references[index] for index in chosen])
    assert [together[index] for index in chosen] == list(apart)


@given(embeddings())
def test_nobody_to_compare_with_is_no_similarity(probe: Embedding) -> None:
    assert similarities(probe, []).shape == (0,)


@given(embeddings(), embeddings())
def test_spaces_are_never_mixed(one: Embedding, other: Embedding) -> None:
    foreign = Embedding(other.vector, OTHER_SPACE)
    with pytest.raises(SpaceMismatch):
        cosine(one, foreign)
    with pytest.raises(SpaceMismatch):
        similarities(one, [other, foreign])


@given(st.sampled_from([1, 2, 128, 512]).flatmap(embeddings))
def test_an_embedding_survives_its_bytes(one: Embedding) -> None:
    again = Embedding.from_bytes(one.to_bytes(), one.space)
    assert again == one
    assert hash(again) == hash(one)
    assert again.to_bytes() == one.to_bytes()
    assert len(one.to_bytes()) == 4 * one.dimension


@given(embeddings(), embeddings())
def test_equal_embeddings_have_equal_hashes(one: Embedding, other: Embedding) -> None:
    signs_of_zero = Embedding(np.where(one.vector == 0.0, np.float32(-0.0), one.vector), SPACE)
    assert one == signs_of_zero
    assert hash(one) == hash(signs_of_zero)
    assert one.to_bytes() == signs_of_zero.to_bytes()
    assert (one == other) == bool((one.vector == other.vector).all())
    assert one != Embedding(one.vector, OTHER_SPACE)


@given(vectors(16))
def test_an_embedding_keeps_a_copy_that_nobody_can_change(vector: NDArray[np.float32]) -> None:
    source = vector / np.float32(np.linalg.norm(vector))
    kept = Embedding(source, SPACE)
    before = kept.to_bytes()
    source[:] = 0.0
    assert kept.to_bytes() == before
    with pytest.raises(ValueError, match="read-only"):
        kept.vector[0] = 0.0
    with pytest.raises(AttributeError):
        setattr(kept, "space", OTHER_SPACE)  # noqa: B010 - what the type checker forbids is forbidden at run time too


@given(embeddings())
def test_a_representation_shows_no_numbers_of_the_vector(one: Embedding) -> None:
    assert repr(one) == str(one) == f"Embedding(space='{SPACE}', dimension=16)"


@given(vectors(16), st.floats(0.0, 4.0))
def test_only_vectors_of_length_one_are_embeddings(vector: NDArray[np.float32], length: float) -> None:
    assume(abs(length - 1.0) > 2 * UNIT_TOLERANCE)
    with pytest.raises(InvalidValue):
        Embedding(vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64)) * length, SPACE)


@given(st.integers(0, 15), st.sampled_from([np.nan, np.inf, -np.inf]), embeddings())
def test_what_is_not_finite_is_no_embedding(position: int, value: float, one: Embedding) -> None:
    broken = one.vector.copy()
    broken[position] = value
    with pytest.raises(InvalidValue):
        Embedding(broken, SPACE)
    with pytest.raises(InvalidValue):
        Embedding.normalised(broken, SPACE)


@pytest.mark.parametrize("shape", [(0,), (), (1, 16), (16, 16)])
def test_what_is_not_one_vector_is_no_embedding(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue):
        Embedding(np.ones(shape, dtype=np.float32), SPACE)
    with pytest.raises(InvalidValue):
        Embedding.normalised(np.zeros(shape, dtype=np.float32), SPACE)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_embedding_are_refused_or_read(raw: bytes) -> None:
    try:
        read = Embedding.from_bytes(raw, SPACE)
    except InvalidValue:
        return
    assert Embedding.from_bytes(read.to_bytes(), SPACE) == read
