"""Photographs that contract tests of face models look at."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from application.conformance.png import Pixels, decoded_png, encoded_png, png, tiff

BLANK_WEBP: Final = bytes.fromhex(
    "5249464624000000574542505650384c170000002f3fc00b000750bc6a95a7ff012021fc5f2f46f43ff50300"
)
"""64 x 48 pixels of one green, lossless."""
BLANK_WEBP_SIZE: Final = (64, 48)
_GIF: Final = b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"


@dataclass(frozen=True, slots=True, kw_only=True)
class Photographs:
    """Encoded images. `Photographs.of` makes some of them from others."""

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
    """The pixels of `person`, stored mirrored or on their side, by the EXIF orientation that makes them upright."""
    tagged: Mapping[int, bytes]
    """The pixels of `group`, in a JPEG whose EXIF orientation says to turn them: by that orientation. Empty where
    pictures are made up."""
    too_many_pixels: bytes
    """Few bytes whose header announces more pixels than any embedder takes."""
    foreign: bytes
    """An image of a format that is not taken."""

    @classmethod
    def of(cls, *, person: Pixels, again: bytes, other: bytes, group: bytes, nobody: bytes) -> "Photographs":
        """Take an upright person as pixels, and the others encoded, upright, without EXIF; `group` as a JPEG."""
        return cls(
            person=encoded_png(person),
            again=again,
            other=other,
            group=group,
            nobody=nobody,
            turned={
                orientation: encoded_png(stored_as(person, orientation), orientation=orientation)
                for orientation in range(2, 9)
            },
            tagged={orientation: _tagged(group, orientation) for orientation in (2, 6)},
            too_many_pixels=png(60_000, 60_000, (b"IDAT", zlib.compress(b""))),
            foreign=_GIF,
        )

    @classmethod
    @cache
    def of_samples(cls) -> "Photographs":
        """Use those that come with the packages insightface and scikit-image; fail plainly where these are missing.

        The second photograph of the same person is the first one mirrored, lightened and of half the size.
        """
        person = astronaut()
        return cls.of(
            person=person,
            again=encoded_png(np.clip(halved(person)[:, ::-1] * 1.2, 0, 255).astype(np.uint8)),
            other=sample("insightface", "data/images/Tom_Hanks_54745.png"),
            group=sample("insightface", "data/images/t1.jpg"),
            nobody=sample("skimage", "data/coffee.png"),
        )


@cache
def astronaut() -> Pixels:
    """Return scikit-image's astronaut, 512 x 512: one face."""
    pixels = decoded_png(sample("skimage", "data/astronaut.png"))
    pixels.setflags(write=False)
    return pixels


def halved(pixels: Pixels) -> Pixels:
    """Average pixels by two and two; both sides are even."""
    height, width = pixels.shape[:2]
    blocks = pixels.reshape(height // 2, 2, width // 2, 2, 3)
    return np.asarray(blocks.mean(axis=(1, 3)), np.uint8)


def stored_as(upright: Pixels, orientation: int) -> Pixels:
    """Return the rows and columns that are upright once `orientation` is applied (EXIF 2.32, table 6)."""
    stored = upright
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    return stored.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else stored


def sample(package: str, file: str) -> bytes:
    """Read a file from an installed package's folder, without importing the package."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / file).is_file():
            return (Path(folder) / file).read_bytes()
    pytest.fail(
        f"the kit's photographs come with the packages insightface and scikit-image, and {package} with {file} is not "
        "installed: pip install 'facepass[demo]', or give your contract test a fixture with photographs of your own",
        pytrace=False,
    )


def _tagged(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment behind the first marker (ITU-T T.81, B.1.1.4; EXIF 2.32, 4.7.2)."""
    exif = b"Exif\x00\x00" + tiff(orientation)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
