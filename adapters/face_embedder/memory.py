"""A face embedder for tests: it reads made-up pictures that say what is to be seen in them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, final

import msgspec
import numpy as np

from application.ports.errors import PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.ping import Ping
from domain.embedding import Embedding, EmbeddingSpace
from domain.errors import ImageFormatUnsupported, ImageTooLarge, ImageTruncated, NotAnImage, TooManyPixels
from domain.face import Analysis, Box, Embed, Face, Landmarks, Point
from domain.quality import Pose, Quality, Reason

_PORT: Final = "face_embedder"
_MOST_BYTES: Final = 10 * 2**20
_MOST_PIXELS: Final = 40_000_000
_GIF: Final = b"GIF8"
_MAGIC: Final = b"facepass-picture\n"
_SIDE: Final = 100
"""Pixels of the largest face; each further one is a tenth narrower."""


class _Picture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    people: tuple[str, ...]
    variation: float
    reasons: tuple[Reason, ...]
    shot: int
    orientation: int
    pixels: int


@final
class MemoryFaceEmbedder(FaceEmbedder, Ping):
    """Sees exactly what `picture` and `group` were told to show. Deterministic, and refuses all other bytes.

    One person's embeddings lie near each other, by `variation`; those of two people are nearly orthogonal. It takes 10
    MiB and 40 megapixels, as the real ones do by default.
    """

    def __init__(self, *, dimension: int = 128, model: str = "memory@1") -> None:
        """Take the space: two embedders with the same arguments share it."""
        digest = hashlib.sha256(f"{model}:{dimension}".encode()).hexdigest()
        self._space = EmbeddingSpace(model=model, digest=digest, dimension=dimension)
        self._closed = False

    @staticmethod
    def picture(
        person: str = "ada",
        *,
        variation: float = 0.0,
        faces: int = 1,
        reasons: Sequence[Reason] = (),
        shot: int = 0,
        orientation: int = 1,
        pixels: int = _SIDE * _SIDE,
    ) -> bytes:
        """Make a picture with `person` as its largest face.

        Args:
            person: who it is.
            variation: length of the vector by which this picture differs from the person, orthogonal to them, which
                alone has length 1: two pictures of variation v have a similarity of about 1 / (1 + v * v).
            faces: how many; the others are strangers who are in no other picture of another person.
            reasons: what is wrong with the largest face.
            shot: another number is another photograph of the same.
            orientation: of EXIF; whatever it is, the picture is seen upright.
            pixels: that it claims to have.
        """
        strangers = [f"{person} beside {index}" for index in range(1, faces)]
        people = [person, *strangers] if faces else []
        return MemoryFaceEmbedder.group(
            people, variation=variation, reasons=reasons, shot=shot, orientation=orientation, pixels=pixels
        )

    @staticmethod
    def group(
        people: Sequence[str],
        *,
        variation: float = 0.0,
        reasons: Sequence[Reason] = (),
        shot: int = 0,
        orientation: int = 1,
        pixels: int = _SIDE * _SIDE,
    ) -> bytes:
        """Make a picture of these people, the largest face first; nobody is an empty picture."""
        shown = _Picture(
            people=tuple(people),
            variation=variation,
            reasons=tuple(reasons),
            shot=shot,
            orientation=orientation,
            pixels=pixels,
        )
        return _MAGIC + msgspec.json.encode(shown)

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def name(self) -> str:
        return _PORT

    async def ping(self) -> None:
        if self._closed:
            raise PortUnavailable(_PORT, "it is being shut down")

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        await self.ping()
        shown = _read(image)
        faces = tuple(self._face(shown, index) for index in range(len(shown.people)))
        wanted = {Embed.NONE: 0, Embed.LARGEST: 1, Embed.ONLY: int(len(faces) == 1), Embed.ALL: len(faces)}[embed]
        return Analysis(
            width=_SIDE * 2 * max(1, len(faces)),
            height=_SIDE * 2,
            faces=(*faces[:wanted], *(replace(face, embedding=None) for face in faces[wanted:])),
        )

    async def close(self) -> None:
        self._closed = True

    def _face(self, shown: _Picture, index: int) -> Face:
        person = shown.people[index]
        vector = self._direction(person)
        if shown.variation:
            aside = self._direction(f"{person} in shot {shown.shot}")
            aside -= (aside @ vector) * vector
            vector = vector + shown.variation * aside / np.linalg.norm(aside)
        box = _box(index)
        reasons = shown.reasons if index == 0 else ()
        return Face(
            box=box,
            landmarks=_landmarks(box),
            confidence=0.99,
            pose=Pose(0.0, 0.0, 0.0),
            quality=Quality(0.2 if reasons else 0.9, reasons),
            embedding=Embedding.normalised(vector, self._space.id),
        )

    def _direction(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        drawn = np.random.default_rng(seed).standard_normal(self._space.dimension)
        return drawn / float(np.linalg.norm(drawn))


def _read(image: bytes) -> _Picture:
    if len(image) > _MOST_BYTES:
        raise ImageTooLarge(f"the image has {len(image)} bytes; {_MOST_BYTES} are allowed")
    if image.startswith(_GIF):
        raise ImageFormatUnsupported("GIF is not decoded")
    if not image.startswith(_MAGIC):
        raise NotAnImage("these bytes are not an image")
    try:
        shown = msgspec.json.decode(image[len(_MAGIC) :], type=_Picture)
    except msgspec.MsgspecError as error:
        raise ImageTruncated("the image is cut off or damaged") from error
    if shown.pixels > _MOST_PIXELS:
        raise TooManyPixels(f"the image has {shown.pixels} pixels; {_MOST_PIXELS} are allowed")
    return shown


def _box(index: int) -> Box:
    side = _SIDE * 0.9**index
    left = _SIDE * (2.0 * index + 0.5)
    return Box(left, _SIDE * 0.5, left + side, _SIDE * 0.5 + side)


def _landmarks(box: Box) -> Landmarks:
    places = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    return Landmarks(*(Point(box.left + x * box.width, box.top + y * box.height) for x, y in places))
