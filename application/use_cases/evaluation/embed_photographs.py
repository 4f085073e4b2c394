import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from application.ports.errors import PortBusy
from application.ports.face_embedder import FaceEmbedder
from domain.errors import ImageRefused, InvalidValue
from domain.evaluation import Photographs
from domain.face import Analysis, Embed

AT_ONCE = 8
"""Images read and decoded at the same time: enough to keep a batch full, few enough to keep memory flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One photograph of a known person, not yet read."""

    person: str
    """Any name; the same one for the same person."""
    name: str
    """What the operator knows it by."""
    load: Callable[[], bytes]
    """Reads it; blocks. Raises `OSError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A photograph that could not be looked at."""

    name: str
    reason: str


class EmbeddingProgress(Protocol):
    """Told how far it has come."""

    def __call__(self, done: int, total: int) -> None:
        """Called after each photograph, from the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddedPhotographs:
    """What is compared, and what could not be."""

    photographs: Photographs
    without_face: tuple[str, ...]
    """Names, ascending. They count as misses."""
    several_faces: int
    """Photographs with more than one face: the one at the centre was taken."""
    unreadable: tuple[Unreadable, ...]
    """By name, ascending. They count for nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedPhotographs:
    """Embed the face that each photograph is of: where it shows several, the one at its centre.

    A photograph without a face stays in as a miss. One that cannot be read, or is no image, is left out
    and reported. Raises `InvalidValue` where fewer than two people are left to tell apart.
    """

    embedder: FaceEmbedder

    async def __call__(self, *, photographs: Sequence[Photograph], progress: EmbeddingProgress) -> EmbeddedPhotographs:
        _require_two_people({photograph.person for photograph in photographs}, "are given")
        found = _Found()
        waiting = iter(photographs)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._work(waiting, found, len(photographs), progress))
        except ExceptionGroup as failures:
            # What stops one worker stops all of them: the first failure says it.
            raise failures.exceptions[0] from None
        _require_two_people(set(found.vectors) | set(found.missed), "can be read")
        return found.embedded()

    async def _work(
        self, waiting: Iterator[Photograph], found: "_Found", total: int, progress: EmbeddingProgress
    ) -> None:
        for photograph in waiting:
            try:
                image = await asyncio.to_thread(photograph.load)
                found.add(photograph, await self._analyse(image))
            except (OSError, ImageRefused) as error:
                found.unreadable.append(Unreadable(name=photograph.name, reason=str(error)))
            found.done += 1
            progress(found.done, total)

    async def _analyse(self, image: bytes) -> Analysis:
        while True:
            try:
                return await self.embedder.analyse(image, embed=Embed.ALL)
            except PortBusy as busy:
                await asyncio.sleep(busy.retry_after)


@dataclass(slots=True)
class _Found:
    vectors: dict[str, list[tuple[str, NDArray[np.float32]]]] = field(default_factory=lambda: defaultdict(list))
    missed: Counter[str] = field(default_factory=Counter)
    without_face: list[str] = field(default_factory=list)
    several_faces: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)
    done: int = 0

    def add(self, photograph: Photograph, analysis: Analysis) -> None:
        meant = analysis.central
        if meant is None or meant.embedding is None:
            self.missed[photograph.person] += 1
            self.without_face.append(photograph.name)
            return
        self.several_faces += len(analysis.faces) > 1
        self.vectors[photograph.person].append((photograph.name, meant.embedding.vector))

    def embedded(self) -> EmbeddedPhotographs:
        # Sorted: images end in any order, and the same folder must give the same figures.
        by_person = {
            person: [vector for _, vector in sorted(named, key=lambda pair: pair[0])]
            for person, named in self.vectors.items()
        }
        return EmbeddedPhotographs(
            photographs=Photographs.of(by_person, self.missed),
            without_face=tuple(sorted(self.without_face)),
            several_faces=self.several_faces,
            unreadable=tuple(sorted(self.unreadable, key=lambda each: each.name)),
        )


def _require_two_people(people: Iterable[str], what: str) -> None:
    match len(set(people)):
        case 0:
            raise InvalidValue(f"no photographs {what}", field="photographs")
        case 1:
            raise InvalidValue(
                f"photographs of one person only {what}: false matches need two people at least, "
                "and rates worth stating need hundreds",
                field="photographs",
            )
