"""What a face looks like to a model, and in which space that can be compared."""

import math
from dataclasses import dataclass
from typing import NewType, Self, final

import numpy as np
from numpy.typing import NDArray

from domain.errors import InvalidValue, SpaceMismatch

SpaceId = NewType("SpaceId", str)
"""Names one embedding space: `<pack>@<version>:<first 12 hex digits of the digest>`."""

UNIT_TOLERANCE = 1e-3
"""How far a vector's length may be from 1: float16 storage errs by about 5e-4 at 512 dimensions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSpace:
    """Model, version, digest, dimension and preprocessing. Vectors of two spaces are never compared."""

    model: str
    """`<pack>@<version>`, as answers show it."""
    digest: str
    """SHA-256 over the model files and the preprocessing: another crop is another space."""
    dimension: int

    @property
    def id(self) -> SpaceId:
        """The short name under which the record and the index know this space."""
        return SpaceId(f"{self.model}:{self.digest[:12]}")

    def require(self, embedding: "Embedding") -> None:
        """Raise `SpaceMismatch` for an embedding of another space, or of another dimension than this one's."""
        require_same_space(self.id, embedding.space)
        if embedding.dimension != self.dimension:
            raise SpaceMismatch(f"{self.id} has {self.dimension} dimensions, not {embedding.dimension}")


@final
class Embedding:
    """A vector of length 1 in one space: float32, shape (D,), read-only, comparable by value."""

    __slots__ = ("_space", "_vector")

    def __init__(self, vector: NDArray[np.floating], space: SpaceId) -> None:
        """Copy `vector`, shape (D,). Raises `InvalidValue` unless it is finite and of length 1 to `UNIT_TOLERANCE`."""
        copied = np.array(vector, dtype=np.float32, copy=True)
        if copied.ndim != 1:
            raise InvalidValue("an embedding is one finite vector", field="embedding")
        wide = copied.astype(np.float64)
        length = math.sqrt(wide @ wide)  # which no number makes finite that is not
        if not math.isfinite(length):
            raise InvalidValue("an embedding is one finite vector", field="embedding")
        if abs(length - 1.0) > UNIT_TOLERANCE:
            raise InvalidValue(f"an embedding has length 1, this one has {length:.4f}", field="embedding")
        # This turns -0.0 into 0.0: the two are equal, so their bytes and hashes must be.
        copied += np.float32(0.0)
        copied.setflags(write=False)
        self._vector = copied
        self._space = space

    @classmethod
    def normalised(cls, vector: NDArray[np.floating], space: SpaceId) -> Self:
        """Scale `vector`, shape (D,), to length 1. Raises `InvalidValue` for a vector of length 0."""
        wide = np.asarray(vector, dtype=np.float64)
        length = float(np.linalg.norm(wide))
        if not np.isfinite(length) or length == 0.0:
            raise InvalidValue("a vector without direction cannot be an embedding", field="embedding")
        return cls(wide / length, space)

    @classmethod
    def from_bytes(cls, raw: bytes, space: SpaceId) -> Self:
        """Read what `to_bytes` wrote: little-endian float32. Raises `InvalidValue` for anything else."""
        if not raw or len(raw) % 4:
            raise InvalidValue("an embedding is kept as float32, 4 bytes a number", field="embedding")
        return cls(np.frombuffer(raw, dtype="<f4"), space)

    def to_bytes(self) -> bytes:
        """Little-endian float32, 4 D bytes."""
        return self._vector.astype("<f4").tobytes()

    @property
    def space(self) -> SpaceId:
        """The space that it can be compared in."""
        return self._space

    @property
    def vector(self) -> NDArray[np.float32]:
        """Shape (D,), float32, read-only."""
        return self._vector

    @property
    def dimension(self) -> int:
        """D."""
        return int(self._vector.shape[0])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Embedding)
            and self.space == other.space
            and bool(np.array_equal(self._vector, other._vector))
        )

    def __hash__(self) -> int:
        return hash((self.space, self._vector.tobytes()))

    def __repr__(self) -> str:
        # Never the numbers: an embedding is biometric data, and representations end in logs.
        return f"Embedding(space={self.space!r}, dimension={self.dimension})"


def require_same_space(*spaces: SpaceId) -> SpaceId:
    """Return the one space that all of `spaces` are. Raises `SpaceMismatch`."""
    if len(set(spaces)) != 1:
        raise SpaceMismatch(f"embeddings of different spaces are never compared: {', '.join(sorted(set(spaces)))}")
    return spaces[0]
