"""What an encoded image says of itself, read before a single pixel is decoded."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from domain.errors import ImageFormatUnsupported, ImageTooLarge, ImageTruncated, NotAnImage, TooManyPixels


class ImageFormat(Enum):
    """What is decoded."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What is decoded at most."""

    size: int = 10 * 1024 * 1024
    """Bytes."""
    pixels: int = 40_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """An image that may be decoded."""

    format: ImageFormat
    width: int
    height: int
    """Pixels as stored, before EXIF orientation."""
    orientation: int
    """EXIF, 1..8; 1 where it is missing or senseless."""
    progressive: bool
    """JPEG only: the decoder holds all coefficients at once."""
    stripped: bytes
    """What the decoder needs of the file. Colour profiles, texts, previews and animation are left out: they carry
    bombs (compressed text, profiles of gigabytes) and warnings, and change no pixel that is used."""


_UNSUPPORTED: Final = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"\x00\x00\x01\x00": "ICO",
    b"8BPS": "PSD",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"P5": "PNM",
    b"P6": "PNM",
    b"qoif": "QOI",
    b"%PDF": "PDF",
    b"<svg": "SVG",
}
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_JPEG_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive Huffman: what decoders know. The others are lossless or arithmetic."""
_JPEG_OTHER_FRAMES: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_SCAN: Final = 0xDA
_JPEG_END: Final = 0xD9
_JPEG_EXIF: Final = 0xE1
_JPEG_DROPPED: Final = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}
"""Application data and comments, but for JFIF (APP0) and Adobe (APP14), which say how colours are stored."""
_JPEG_PROGRESSIVE: Final = 0xC2
_ORIENTATION_TAG: Final = 0x0112
_ORIENTATIONS: Final = 8
_TURNED: Final = 5
"""From this orientation on, width and height change places."""


def read_header(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Check format, bytes and pixels. Costs microseconds, for a PNG the checksums of its chunks.

    Raises:
        NotAnImage: empty, or not a picture of any kind.
        ImageFormatUnsupported: a picture, but not a JPEG, PNG or WebP that is decoded here.
        ImageTooLarge: more bytes than allowed.
        TooManyPixels: more pixels than allowed, as the header has it.
        ImageTruncated: the header is damaged, or parts that it announces are not there.
    """
    if not data:
        raise NotAnImage("the image is empty")
    if len(data) > limits.size:
        raise ImageTooLarge(f"the image has {len(data)} bytes; {limits.size} are allowed")
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data, limits)
        if data.startswith(_PNG):
            return _png(data, limits)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data, limits)
    except (struct.error, IndexError) as error:
        raise ImageTruncated("the image ends within its header") from error
    raise _foreign(data)


def orientation_of(exif: bytes) -> int:
    """Return the orientation in a TIFF block (EXIF 2.32, tag 0x0112), 1 where there is none that makes sense."""
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == _ORIENTATION_TAG:
                return int(value) if 1 <= value <= _ORIENTATIONS else 1
    except (KeyError, struct.error):
        pass  # a broken EXIF block is no reason to refuse a picture
    return 1


def upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height after the orientation was applied."""
    return (height, width) if orientation >= _TURNED else (width, height)


def _foreign(data: bytes) -> Exception:
    name = next((name for magic, name in _UNSUPPORTED.items() if data.startswith(magic)), None)
    if name is None and data[4:8] == b"ftyp":
        name = "HEIF, AVIF or a video"
    if name is None:
        return NotAnImage("these bytes are not an image")
    return ImageFormatUnsupported(f"{name} is not decoded; send JPEG, PNG or WebP")


def _checked(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise ImageTruncated("the header says that the image has no pixels")
    if width * height > limits.pixels:
        raise TooManyPixels(f"the image has {width} x {height} pixels; {limits.pixels} are allowed in all")


def _jpeg(data: bytes, limits: ImageLimits) -> ImageHeader:
    """ITU-T T.81, annex B: segments up to the first scan."""
    frame: tuple[int, int, bool] | None = None
    orientation = 1
    kept = [b"\xff\xd8"]
    for marker, start, end in _segments(data):
        if marker == _JPEG_SCAN:
            if frame is None:
                raise ImageTruncated("the image's data come before its header")
            width, height, progressive = frame
            return ImageHeader(
                format=ImageFormat.JPEG,
                width=width,
                height=height,
                orientation=orientation,
                progressive=progressive,
                stripped=b"".join([*kept, data[start:]]),
            )
        if marker in _JPEG_OTHER_FRAMES:
            raise ImageFormatUnsupported("lossless and arithmetic JPEG are not decoded")
        if marker in _JPEG_FRAMES:
            bits, height, width = struct.unpack_from(">BHH", data, start + 4)
            if bits != 8:  # noqa: PLR2004 - the one precision that JPEG decoders share
                raise ImageFormatUnsupported(f"JPEG with {bits} bits a sample is not decoded")
            _checked(width, height, limits)
            frame = (width, height, marker == _JPEG_PROGRESSIVE)
        elif marker == _JPEG_EXIF and data[start + 4 : start + 10] == b"Exif\x00\x00":
            orientation = orientation_of(data[start + 10 : end])
        if marker not in _JPEG_DROPPED:
            kept.append(data[start:end])
    raise ImageTruncated("the image ends before its data")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, where its segment starts (at 0xFF) and where it ends, until the first scan or the end."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:  # noqa: PLR2004 - every marker starts so
            raise ImageTruncated("the image's header is damaged")
        marker = data[position + 1]
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            position += 1
            continue
        if marker == _JPEG_END:
            return
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if end > len(data) or end < position + 4:
            raise ImageTruncated("the image ends within its header")
        yield marker, position, end
        position = end


def _png(data: bytes, limits: ImageLimits) -> ImageHeader:
    """W3C PNG, third edition, section 5. Every checksum is compared: decoders skip those of the pixels."""
    if data[12:16] != b"IHDR":
        raise ImageTruncated("the image's header is damaged")
    width, height = struct.unpack_from(">II", data, 16)
    _checked(width, height, limits)
    orientation = 1
    kept = [_PNG]
    view = memoryview(data)
    position = len(_PNG)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            raise ImageTruncated("the image ends within its data")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageTruncated("a part of the image is damaged")
        if name in _PNG_KEPT:
            kept.append(data[position:end])
        elif name == b"eXIf":
            orientation = orientation_of(data[position + 8 : end - 4])
        if name == b"IEND":
            return ImageHeader(
                format=ImageFormat.PNG,
                width=width,
                height=height,
                orientation=orientation,
                progressive=False,
                stripped=b"".join(kept),
            )
        position = end
    raise ImageTruncated("the image ends within its data")


def _webp(data: bytes, limits: ImageLimits) -> ImageHeader:
    """RFC 9649, section 2."""
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ImageTruncated("the image ends within its data")
    kind = data[12:16]
    orientation = 1
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise ImageTruncated("the image's header is damaged")
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        if data[20] & 0x02:
            raise ImageFormatUnsupported("animated WebP is not decoded")
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        orientation = _webp_orientation(data[: size + 8])
    else:
        raise ImageTruncated("the image's header is damaged")
    _checked(width, height, limits)
    return ImageHeader(
        format=ImageFormat.WEBP,
        width=width,
        height=height,
        orientation=orientation,
        progressive=False,
        stripped=data[: size + 8],
    )


def _webp_orientation(data: bytes) -> int:
    position = 12
    while position + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        if data[position : position + 4] == b"EXIF":
            block = data[position + 8 : position + 8 + length]
            return orientation_of(block.removeprefix(b"Exif\x00\x00"))
        position += 8 + length + length % 2
    return 1
