"""The sample photographs that two packages carry, and what may happen to a photograph on its way."""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from domain.face import Box
from entrypoints.cli.session import CommandFailed

MARGINS = (0.65, 0.5, 0.8)
"""Of a face's box, added on every side when one person is cut out of a group. Each person is enrolled from all three,
as from three photographs: one of the six is turned away by about 50 degrees, where a gallery begins to refuse faces,
and the pose of such a face is estimated a little differently each time."""

_KEPT_QUALITY = 95
_POOR_QUALITY = 15
_ORIENTATION = 0x0112
"""EXIF's tag; the value 6 says that the picture must be turned clockwise by 90 degrees to be upright."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Photographs of real people, encoded."""

    group: bytes
    """Six people."""
    single: dict[str, bytes]
    """One person each, by the name that the samples' makers give."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens to photographs."""

    name: str
    apply: Callable[[Image.Image], bytes]


def read_samples() -> Samples:
    """Read them from the packages' folders, without importing the packages. Raises `CommandFailed`."""
    return Samples(
        group=_read("insightface", "data/images/t1.jpg"),
        single={
            "eileen-collins": _read("skimage", "data/astronaut.png"),
            "tom-hanks": _read("insightface", "data/images/Tom_Hanks_54745.png"),
        },
    )


def cut_out(photograph: bytes, box: Box, margin: float) -> bytes:
    """Cut one face out of a photograph, with `margin` times its box on every side, as a JPEG of high quality."""
    with Image.open(io.BytesIO(photograph)) as opened:
        picture = opened.convert("RGB")
    aside, above = box.width * margin, box.height * margin
    corners = (
        max(0, round(box.left - aside)),
        max(0, round(box.top - above)),
        min(picture.width, round(box.right + aside)),
        min(picture.height, round(box.bottom + above)),
    )
    return _jpeg(picture.crop(corners))


def changed(photograph: bytes, change: Change) -> bytes:
    """Return a changed copy, encoded."""
    with Image.open(io.BytesIO(photograph)) as opened:
        return change.apply(opened.convert("RGB"))


def _cropped(picture: Image.Image) -> bytes:
    width, height = picture.size
    return _jpeg(picture.crop((round(width * 0.12), round(height * 0.10), round(width * 0.88), round(height * 0.90))))


def _darker(picture: Image.Image) -> bytes:
    return _jpeg(ImageEnhance.Brightness(picture).enhance(0.5))


def _mirrored(picture: Image.Image) -> bytes:
    return _jpeg(ImageOps.mirror(picture))


def _recompressed(picture: Image.Image) -> bytes:
    return _jpeg(picture, quality=_POOR_QUALITY)


def _smaller(picture: Image.Image) -> bytes:
    half = (max(1, picture.width // 2), max(1, picture.height // 2))
    return _jpeg(picture.resize(half, Image.Resampling.LANCZOS))


def _turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    return _jpeg(picture.transpose(Image.Transpose.ROTATE_90), exif=exif)


CHANGES = (
    Change("cropped tighter", _cropped),
    Change("half as bright", _darker),
    Change("mirrored", _mirrored),
    Change(f"JPEG quality {_POOR_QUALITY}", _recompressed),
    Change("half the size", _smaller),
    Change("EXIF orientation", _turned),
)


def _jpeg(picture: Image.Image, *, quality: int = _KEPT_QUALITY, exif: Image.Exif | None = None) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=quality, exif=exif or Image.Exif())
    return encoded.getvalue()


def _read(package: str, name: str) -> bytes:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / name
        if path.is_file():
            return path.read_bytes()
    raise CommandFailed(
        f"the sample photograph {package}/{name} is not installed; it comes with: pip install 'facepass[demo]'"
    )
