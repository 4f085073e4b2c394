"""A pack's manifest: TOML in, domain out."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from domain.errors import PackCorrupt
from domain.model_pack import (
    ArchiveSource,
    ColourOrder,
    DetectorDecoder,
    DetectorPart,
    EmbedderDecoder,
    EmbedderPart,
    InputLayout,
    LivenessDecoder,
    LivenessPart,
    ModelPack,
    Part,
    Pixels,
    RegistrySource,
    UrlSource,
    Weights,
)

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NAME: Final = r"^[a-z0-9][a-z0-9_-]*$"
_LANDMARKS: Final = 5

_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, Meta(min_length=1)]
_Address = Annotated[str, Meta(pattern=r"^(https?|file)://")]
_FileName = Annotated[str, Meta(pattern=rf"^{_SAFE_NAME.pattern}$")]
_Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
_Sides = Annotated[int, Meta(ge=1, le=4096)]


class _Registry(Struct, frozen=True, forbid_unknown_fields=True, tag="registry", tag_field="kind"):
    package: _Text
    version: _Text
    archive: _FileName
    archive_sha256: _Sha256
    member: _Text
    member_sha256: _Sha256

    def to_domain(self) -> RegistrySource:
        return RegistrySource(**msgspec.structs.asdict(self))


class _Url(Struct, frozen=True, forbid_unknown_fields=True, tag="url", tag_field="kind"):
    url: _Address
    sha256: _Sha256 | None = None

    def to_domain(self) -> UrlSource:
        return UrlSource(**msgspec.structs.asdict(self))


class _Archive(Struct, frozen=True, forbid_unknown_fields=True, tag="archive", tag_field="kind"):
    url: _Address
    member: _Text
    archive_sha256: _Sha256 | None = None
    member_sha256: _Sha256 | None = None

    def to_domain(self) -> ArchiveSource:
        return ArchiveSource(**msgspec.structs.asdict(self))


class _Pixels(Struct, frozen=True, forbid_unknown_fields=True):
    layout: InputLayout
    colour: ColourOrder
    width: _Sides | None = None
    height: _Sides | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    divisor: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def to_domain(self) -> Pixels:
        return Pixels(**msgspec.structs.asdict(self))


class _Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    file: _FileName
    source: _Registry | _Url | _Archive
    converter: _Text | None = None
    licence: _Text
    commercial: bool
    licence_note: _Text
    pixels: _Pixels

    def weights(self) -> Weights:
        return Weights(
            file=self.file,
            source=self.source.to_domain(),
            converter=self.converter,
            licence=self.licence,
            commercial=self.commercial,
            licence_note=self.licence_note,
        )


class _Detector(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    decoder: DetectorDecoder
    multiple: _Sides
    confidence: _Ratio
    nms_iou: _Ratio

    def to_domain(self) -> DetectorPart:
        return DetectorPart(
            name="detector",
            decoder=self.decoder,
            weights=self.weights(),
            pixels=self.pixels.to_domain(),
            multiple=self.multiple,
            confidence=self.confidence,
            nms_iou=self.nms_iou,
        )


class _Embedder(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    decoder: EmbedderDecoder
    dimension: _Sides
    mirror: bool
    template: Annotated[list[tuple[float, float]], Meta(min_length=_LANDMARKS, max_length=_LANDMARKS)]

    def __post_init__(self) -> None:
        if self.pixels.width is None or self.pixels.height is None:
            raise ValueError("pixels of an embedder need a width and a height: the template is in pixels of the chip")

    def to_domain(self) -> EmbedderPart:
        return EmbedderPart(
            name="embedder",
            decoder=self.decoder,
            weights=self.weights(),
            pixels=self.pixels.to_domain(),
            template=tuple(self.template),
            dimension=self.dimension,
            mirror=self.mirror,
        )


class _Liveness(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(pattern=_NAME)]
    decoder: LivenessDecoder
    crop_scale: Annotated[float, Meta(gt=0.0)]
    classes: Annotated[int, Meta(ge=2)]
    live_index: Annotated[int, Meta(ge=0)]

    def __post_init__(self) -> None:
        if self.live_index >= self.classes:
            raise ValueError(f"live_index {self.live_index} is not one of {self.classes} classes")

    def to_domain(self) -> LivenessPart:
        return LivenessPart(
            name=self.name,
            decoder=self.decoder,
            weights=self.weights(),
            pixels=self.pixels.to_domain(),
            crop_scale=self.crop_scale,
            classes=self.classes,
            live_index=self.live_index,
        )


class _Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal[1]
    name: Annotated[str, Meta(pattern=_NAME)]
    version: Annotated[int, Meta(ge=1)]
    summary: _Text
    training_data: _Text
    detector: _Detector | None = None
    embedder: _Embedder | None = None
    liveness: list[_Liveness] = []
    calibration: dict[str, Any] | None = None

    def to_domain(self) -> ModelPack:
        wire = [part for part in (self.detector, self.embedder, *self.liveness) if part is not None]
        parts: tuple[Part, ...] = tuple(part.to_domain() for part in wire)
        for what, values in (
            ("name", [part.name for part in parts]),
            ("file", [part.weights.file for part in parts]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"two parts have the same {what}: {', '.join(values)}")
        if not parts:
            raise ValueError("a pack has at least one part: detector, embedder or liveness")
        return ModelPack(
            name=self.name,
            version=self.version,
            summary=self.summary,
            training_data=self.training_data.strip(),
            parts=parts,
            calibration=self.calibration,
        )


def read_manifest(path: Path) -> ModelPack:
    """Read one TOML file. Raises `PackCorrupt`, which names the file, the field and what is wrong with it."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=_Manifest).to_domain()
    except (OSError, ValueError) as error:  # msgspec's and tomllib's errors are ValueErrors
        raise PackCorrupt(f"the manifest {path} cannot be used: {error}") from error
