"""Faces drawn into a copy of their photograph: frames, landmarks, and a label that can be read."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

from domain.face import Box, Landmarks
from entrypoints.cli.session import CommandFailed

Tone = Literal["good", "doubtful", "bad", "plain"]

_TONES: dict[Tone, tuple[int, int, int]] = {
    "good": (74, 222, 128),
    "doubtful": (251, 191, 36),
    "bad": (248, 113, 113),
    "plain": (226, 232, 240),
}
_PAPER = (15, 23, 42, 216)
_INK = (248, 250, 252)
_FAINT = (203, 213, 225)

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_SMALLEST_SIDE = 1000
"""Pixels of the longer side below which a photograph is enlarged: labels could not be read in it."""

_LARGEST_SCALE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """One face to draw."""

    box: Box
    """Pixels of the upright photograph."""
    title: str
    """The first line of its label, in large letters."""
    lines: tuple[str, ...] = ()
    tone: Tone = "plain"
    landmarks: Landmarks | None = None


@dataclass(frozen=True, slots=True)
class _Rectangle:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "_Rectangle") -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


def checked_picture(path: Path | None) -> Path | None:
    """Return it as it is. Raises `CommandFailed` unless a picture can be written there, before any work is done."""
    if path is not None and path.suffix.lower() not in _SUFFIXES:
        raise CommandFailed(f"{path}: a picture's name ends in .png, .jpg or .webp")
    if path is not None and not path.absolute().parent.is_dir():
        raise CommandFailed(f"{path}: there is no folder {path.absolute().parent}")
    return path


def save_picture(photograph: bytes, faces: Sequence[Marked], path: Path) -> None:
    """Draw `faces` into a copy of the photograph and write it to `path`. Raises `CommandFailed`."""
    picture = drawn(photograph, faces)
    try:
        picture.save(path, quality=92)
    except OSError as error:
        raise CommandFailed(f"the picture cannot be written: {error}") from error


def drawn(photograph: bytes, faces: Sequence[Marked]) -> Image.Image:
    """Return a copy of the photograph with the faces drawn in; a small one is enlarged."""
    with Image.open(io.BytesIO(photograph)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    scale = min(max(1.0, _SMALLEST_SIDE / max(picture.size)), _LARGEST_SCALE)
    if scale > 1.0:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    pen = _pen(picture.size)
    canvas = ImageDraw.Draw(picture, "RGBA")
    frames = [_scaled(face.box, scale) for face in faces]
    for face, frame in zip(faces, frames, strict=True):
        _draw_frame(canvas, frame, face, scale, pen)
    placed: list[_Rectangle] = []
    for face, frame in zip(faces, frames, strict=True):
        placed.append(_draw_label(canvas, face, frame, taken=[*frames, *placed], size=picture.size))
    return picture


def _draw_frame(canvas: ImageDraw.ImageDraw, frame: _Rectangle, face: Marked, scale: float, pen: int) -> None:
    corners = (frame.left, frame.top, frame.right, frame.bottom)
    radius = min(frame.right - frame.left, frame.bottom - frame.top) * 0.08
    # A dark line under the bright one, so that the frame shows on any background.
    canvas.rounded_rectangle(corners, radius=radius, outline=(0, 0, 0, 110), width=pen + 2)
    canvas.rounded_rectangle(corners, radius=radius, outline=_TONES[face.tone], width=pen)
    for point in () if face.landmarks is None else face.landmarks.points():
        x, y, r = point.x * scale, point.y * scale, pen * 1.6
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=_TONES[face.tone], outline=(0, 0, 0, 160))


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    face: Marked,
    frame: _Rectangle,
    *,
    taken: Sequence[_Rectangle],
    size: tuple[int, int],
) -> _Rectangle:
    pen = _pen(size)
    large = ImageFont.load_default(size=max(size) / 58)
    small = ImageFont.load_default(size=max(size) / 72)
    texts = [(face.title, large, _INK), *((line, small, _FAINT) for line in face.lines)]
    boxes = [canvas.textbbox((0, 0), text, font=font) for text, font, _ in texts]
    pad, gap = pen * 3, pen * 1.5
    width = max(box[2] for box in boxes) + 2 * pad
    height = sum(box[3] for box in boxes) + gap * (len(boxes) - 1) + 2 * pad
    place = min(
        _places(frame, width, height, size, gap),
        key=lambda place: sum(place.overlap(other) for other in taken if other is not frame) + 2 * place.overlap(frame),
    )
    canvas.rounded_rectangle((place.left, place.top, place.right, place.bottom), radius=pad, fill=_PAPER)
    canvas.line(
        (place.left + pad, place.top + pen / 2, place.right - pad, place.top + pen / 2),
        fill=_TONES[face.tone],
        width=pen,
    )
    y = place.top + pad
    for (text, font, ink), box in zip(texts, boxes, strict=True):
        canvas.text((place.left + pad, y), text, font=font, fill=ink)
        y += box[3] + gap
    return place


def _places(frame: _Rectangle, width: float, height: float, size: tuple[int, int], gap: float) -> Iterator[_Rectangle]:
    """Below, above, right, left: the first of those that cover the least."""
    middle_x, middle_y = (frame.left + frame.right - width) / 2, (frame.top + frame.bottom - height) / 2
    for left, top in (
        (middle_x, frame.bottom + gap),
        (middle_x, frame.top - height - gap),
        (frame.right + gap, middle_y),
        (frame.left - width - gap, middle_y),
    ):
        x = min(max(left, 0.0), max(0.0, size[0] - width))
        y = min(max(top, 0.0), max(0.0, size[1] - height))
        yield _Rectangle(x, y, x + width, y + height)


def _pen(size: tuple[int, int]) -> int:
    return max(2, round(max(size) / 320))


def _scaled(box: Box, scale: float) -> _Rectangle:
    return _Rectangle(box.left * scale, box.top * scale, box.right * scale, box.bottom * scale)
