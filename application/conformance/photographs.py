"""Photographs that contract tests of face models look at."""

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
from PIL import Image, ImageEnhance, ImageOps

_ORIENTATION: Final = 0x0112
"""EXIF's tag (EXIF 2.32, table 6)."""
_STORED: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is stored under each orientation but the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photographs:
    """Encoded images. `Photographs.of` makes all of them from five."""

    person: bytes
    """One face."""
    again: bytes
    """One face, of the same person; another photograph, or one that was changed a good deal."""
    other: bytes
    """One face, of somebody else."""
    group: bytes
    """At least three faces."""
    nobody: bytes
    """No face."""
    turned: Mapping[int, bytes]
    """What `person` shows, stored mirrored or on its side, by the EXIF orientation that makes it upright."""
    formats: Mapping[str, bytes]
    """What `person` shows, in each format that is taken."""
    too_many_pixels: bytes
    """Few bytes whose header announces more pixels than any embedder takes."""
    foreign: bytes
    """An image of a format that is not taken."""

    @classmethod
    def of(cls, *, person: bytes, again: bytes, other: bytes, group: bytes, nobody: bytes) -> "Photographs":
        """Take five photographs as JPEG, PNG or WebP, upright without EXIF, and make the others of `person`."""
        with Image.open(io.BytesIO(person)) as opened:
            upright = opened.convert("RGB")
        return cls(
            person=person,
            again=again,
            other=other,
            group=group,
            nobody=nobody,
            turned={orientation: _turned(upright, orientation) for orientation in _STORED},
            formats={
                "JPEG": encoded(upright, "JPEG", quality=97, subsampling=0),
                "PNG": encoded(upright, "PNG"),
                "WebP": encoded(upright, "WEBP", lossless=True),
            },
            too_many_pixels=_huge_png(),
            foreign=encoded(upright, "GIF"),
        )

    @classmethod
    @cache
    def of_samples(cls) -> "Photographs":
        """Use those that come with the packages insightface and scikit-image; fail plainly where these are missing.

        Nobody is imported: the files alone count. The second photograph of the same person is the first one mirrored,
        lightened and of half the size.
        """
        eileen = astronaut()
        half = ImageOps.mirror(eileen.resize((eileen.width // 2, eileen.height // 2)))
        hanks = sample("insightface", "data/images/Tom_Hanks_54745.png")
        framed = ImageOps.expand(hanks.resize((hanks.width * 2, hanks.height * 2)), border=hanks.width, fill="grey")
        return cls.of(
            person=encoded(eileen, "JPEG", quality=97, subsampling=0),
            again=encoded(ImageEnhance.Brightness(half).enhance(1.2), "JPEG", quality=85),
            other=encoded(framed, "PNG"),
            group=encoded(sample("insightface", "data/images/t1.jpg"), "JPEG", quality=95),
            nobody=encoded(sample("skimage", "data/coffee.png"), "JPEG", quality=90),
        )


def astronaut() -> Image.Image:
    """Return scikit-image's astronaut, 512 x 512: one face."""
    return sample("skimage", "data/astronaut.png")


def sample(package: str, file: str) -> Image.Image:
    """Open a photograph in an installed package's folder, without importing the package."""
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (Path(folder) / file).is_file():
            with Image.open(Path(folder) / file) as opened:
                return opened.convert("RGB")
    pytest.fail(
        f"the kit's photographs come with the packages insightface and scikit-image, and {package} with {file} is not "
        "installed: pip install 'facepass[demo]', or give your contract test a fixture with photographs of your own",
        pytrace=False,
    )


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image; `kind` and `options` are Pillow's."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _turned(upright: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    stored = upright.transpose(_STORED[orientation])
    return encoded(stored, "JPEG", quality=97, subsampling=0, exif=exif)


def _huge_png() -> bytes:
    """Announce 60,000 x 60,000 pixels in less than a hundred bytes (W3C PNG, third edition, section 5)."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
