import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, final

from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.errors import PortBusy
from application.ports.face_embedder import FaceEmbedder
from application.ports.gallery_moves import Followed, Lagging
from application.use_cases.galleries.move_order import MoveOrder, MoveScope
from application.use_cases.references.places import image_key, image_place, template_place
from application.use_cases.spaces import ServedSpaces
from domain.embedding import Embedding
from domain.errors import CannotOpen, FaceNotFound, ImageNotKept, InvalidRequest
from domain.face import Box, Embed

T = TypeVar("T")

IMAGES_AT_ONCE = 2
"""Fewer than an enrolment's: whoever waits for an answer goes first."""

SMALLEST_OVERLAP = 0.2
"""Intersection over union of a face with the one that was enrolled, from which the two are taken for the same face of
the image. Between the detector of `open` and one of InsightFace's (SCRFD 2.5 GF) it was 0.84 or more on 252 photographs
of LFW, 0.93 in the middle, and 0 with every other face; detectors that draw wider or narrower boxes come lower."""

PATIENCE = 120
"""Times that a busy model is asked again, a second or so apart, before the job is given back."""

SWEEP_AFTER = timedelta(seconds=5)
"""The job writes the index at once; the sweep takes over where it died before it could."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FollowReferences:
    """Embed some references of a gallery in another space, from their kept images, and write that space's index.

    The face is the one that was enrolled, wherever the other model finds it; its quality was judged when it was
    enrolled, and is not judged again.
    """

    spaces: ServedSpaces
    blobs: BlobStore
    cipher: Cipher
    scope: MoveScope
    clock: Clock

    async def __call__(self, order: MoveOrder, lagging: Sequence[Lagging]) -> None:
        """Commit a template or a refusal for each that is still there.

        Raises what ports raise about themselves: then nothing of these is kept, and they are to be tried again.
        """
        embedder = self.spaces.of(order.target).embedder
        free = asyncio.Semaphore(IMAGES_AT_ONCE)

        async def look(one: Lagging) -> Followed:
            async with free:
                return await self._followed(order, embedder, one)

        async with asyncio.TaskGroup() as group:
            looking = [group.create_task(look(one)) for one in lagging]
        async with self.scope() as unit:
            there = await unit.templates.add(
                order.workspace, order.gallery, order.target, [task.result() for task in looking]
            )
            await unit.reconciliations.note(
                order.workspace, there, space=order.source, due=self.clock.now() + SWEEP_AFTER
            )
            await unit.transaction.commit()
            await unit.reconcile.after_commit(workspace=order.workspace, references=there)

    async def _followed(self, order: MoveOrder, embedder: FaceEmbedder, one: Lagging) -> Followed:
        try:
            embedding = await self._embedded(order, embedder, one)
        except (InvalidRequest, ImageNotKept, CannotOpen) as error:
            return Followed(reference=one.reference, refusal=error.code)
        sealed = self.cipher.seal(
            embedding.to_bytes(), key=one.key, place=template_place(order.workspace, one.reference)
        )
        return Followed(reference=one.reference, template=sealed)

    async def _embedded(self, order: MoveOrder, embedder: FaceEmbedder, one: Lagging) -> Embedding:
        sealed = await self.blobs.get(image_key(order.workspace, one.reference)) if one.has_image else None
        if sealed is None:
            raise ImageNotKept("the image of this reference was not kept")
        image = await asyncio.to_thread(
            self.cipher.open, sealed, key=one.key, place=image_place(order.workspace, one.reference)
        )
        # Nearly always there is one face, and it is that one: all others are embedded only where there is a choice.
        seen = await patiently(lambda: embedder.analyse(image, embed=Embed.ONLY))
        if len(seen.faces) > 1:
            seen = await patiently(lambda: embedder.analyse(image, embed=Embed.ALL))
        face = max(seen.faces, key=lambda found: overlap(found.box, one.box), default=None)
        if face is None or face.embedding is None or overlap(face.box, one.box) < SMALLEST_OVERLAP:
            raise FaceNotFound("the face that was enrolled was not found in its image")
        return face.embedding


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask a busy model again when it says, rather than fail: this work can wait. Raises `PortBusy` in the end."""
    for _ in range(PATIENCE):
        try:
            return await ask()
        except PortBusy as busy:
            await asyncio.sleep(busy.retry_after)
    return await ask()


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0..1 (Jaccard index)."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0.0 or height <= 0.0:
        return 0.0
    shared = width * height
    return shared / (one.area + other.area - shared)
