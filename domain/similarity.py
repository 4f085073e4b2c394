"""How alike two faces look to one model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.embedding import Embedding, require_same_space


def cosine(one: Embedding, other: Embedding) -> float:
    """Cosine in [-1, 1], computed in float64. Not a probability. Raises `SpaceMismatch`."""
    require_same_space(one.space, other.space)
    return float(similarities(one, [other])[0])


def similarities(probe: Embedding, references: Sequence[Embedding]) -> NDArray[np.float64]:
    """Cosine of `probe` to each reference, shape (N,), in [-1, 1]. Raises `SpaceMismatch`.

    In float64 and from the stored vectors alone, so that every backend ends in the same numbers. Divided by the
    lengths, which `UNIT_TOLERANCE` lets be 1e-3 off: a threshold would feel that.
    """
    if not references:
        return np.zeros(0)
    require_same_space(probe.space, *(reference.space for reference in references))
    # Products and sums a row, not BLAS: BLAS may group the sum by the number of rows, and a similarity
    # must not depend on who else is looked at.
    stacked = np.stack([reference.vector for reference in references]).astype(np.float64)
    wide = probe.vector.astype(np.float64)
    # One root of the product, not a product of roots: so a vector's cosine with itself is 1 to the last bit.
    lengths = np.sqrt((stacked * stacked).sum(axis=1) * (wide * wide).sum())
    cosines: NDArray[np.float64] = np.clip((stacked * wide).sum(axis=1) / lengths, -1.0, 1.0)
    return cosines
