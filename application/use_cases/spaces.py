"""The embedding spaces that a process serves: mostly one, two while galleries move to another model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from application.ports.errors import PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.index_states import IndexName, IndexState
from application.ports.vector_index import VectorIndex
from domain.calibration import Calibration
from domain.embedding import SpaceId
from domain.errors import SpaceMismatch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSpace:
    """One of them: who makes its vectors, where they are looked for, and how they decide."""

    embedder: FaceEmbedder
    indexes: Mapping[IndexName, VectorIndex]
    """By name: one, and a second while the installation moves to another vector index."""
    calibration: Calibration
    """The curve that decisions rest on."""

    @property
    def id(self) -> SpaceId:
        """The space."""
        return self.embedder.space.id

    @property
    def model(self) -> str:
        """`<pack>@<version>`, as answers show it."""
        return self.embedder.space.model

    def index(self, name: IndexName) -> VectorIndex:
        """Return an index by name. Raises `PortUnavailable` where this process has no settings for it."""
        index = self.indexes.get(name)
        if index is None:
            raise PortUnavailable(
                "vector_index", f"the index {name!r} is in use, and this process has no settings for it"
            )
        return index

    def written(self, state: IndexState) -> Sequence[VectorIndex]:
        """Return those that a change goes to, the one that answers searches first. Raises `PortUnavailable`."""
        return [self.index(name) for name in state.written]


@final
class ServedSpaces:
    """All of them; new galleries are bound to the first."""

    __slots__ = ("_by_id", "_first")

    def __init__(self, first: ServedSpace, *further: ServedSpace) -> None:
        """Take them; two of the same id are one, the earlier."""
        self._first = first
        self._by_id = {one.id: one for one in (*reversed(further), first)}

    @property
    def first(self) -> ServedSpace:
        """The one for new galleries, and for calls without a gallery."""
        return self._first

    @property
    def all(self) -> Sequence[ServedSpace]:
        """Every one of them, in no order that matters."""
        return tuple(self._by_id.values())

    def of(self, space: SpaceId) -> ServedSpace:
        """Return the one of this id. Raises `SpaceMismatch` where it is not served."""
        served = self._by_id.get(space)
        if served is None:
            raise SpaceMismatch(
                f"the gallery's embeddings are of {space}, and this service's models make"
                f" {', '.join(sorted(self._by_id))}: they are never compared"
            )
        return served
