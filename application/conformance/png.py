"""PNG in a few lines, for pictures whose pixels a contract test has to know (W3C PNG, third edition).

The kit decodes nothing with the libraries that adapters use, so that no adapter is tested by itself.
"""

import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""H x W x 3, RGB."""

_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_RGB_IN_BYTES: Final = (8, 2, 0, 0, 0)
"""Bit depth, colour type, compression, filter and interlace methods (section 11.2.1): all that is read here."""
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)


def encoded_png(pixels: Pixels, *, orientation: int = 1) -> bytes:
    """Encode pixels as they are stored; `orientation` is what EXIF says of them, 1..8."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # each behind its filter, which is none
    rows[:, 1:] = pixels.reshape(height, -1)
    exif = (b"eXIf", tiff(orientation)) if orientation != 1 else None
    return png(width, height, *(part for part in (exif, (b"IDAT", zlib.compress(rows.tobytes(), 1))) if part))


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Put a file together: header and end around the other chunks, names and contents."""
    header = struct.pack(">II5B", width, height, *_RGB_IN_BYTES)
    return _MAGIC + b"".join(_chunk(name, content) for name, content in ((b"IHDR", header), *chunks, (b"IEND", b"")))


def tiff(orientation: int) -> bytes:
    """Return the least that EXIF needs to tell an orientation (EXIF 2.32, tag 0x0112, a SHORT)."""
    return b"MM\x00*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def decoded_png(data: bytes) -> Pixels:
    """Decode 8-bit RGB without interlacing. Raises `ValueError` for any other PNG."""
    width, height, *kind = struct.unpack_from(">II5B", data, 16)
    if not data.startswith(_MAGIC) or tuple(kind) != _RGB_IN_BYTES:
        raise ValueError("the kit reads PNGs of 8-bit RGB without interlacing")
    packed, position = b"", len(_MAGIC)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + length]
        position += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * 3)
    pixels = np.empty((height, width, 3), np.uint8)
    above = np.zeros((width, 3), np.uint8)
    for row, into in zip(rows, pixels, strict=True):
        _unfilter(int(row[0]), row[1:].reshape(width, 3), above, into)
        above = into
    return pixels


def _unfilter(method: int, filtered: Pixels, above: Pixels, into: Pixels) -> None:
    """Undo one row's filter (section 9.2). All sums are modulo 256, as bytes are."""
    if method == _NONE:
        into[:] = filtered
    elif method == _SUB:
        into[:] = np.cumsum(filtered, axis=0, dtype=np.uint8)
    elif method == _UP:
        into[:] = filtered + above
    else:
        _unfilter_one_by_one(method, filtered.tolist(), above.tolist(), into)


def _unfilter_one_by_one(method: int, filtered: list[list[int]], above: list[list[int]], into: Pixels) -> None:
    left, corner = [0, 0, 0], [0, 0, 0]
    for column, (values, tops) in enumerate(zip(filtered, above, strict=True)):
        left = [
            (value + ((before + top) // 2 if method == _AVERAGE else _paeth(before, top, diagonal))) & 0xFF
            for value, before, top, diagonal in zip(values, left, tops, corner, strict=True)
        ]
        into[column] = left
        corner = tops


def _paeth(left: int, above: int, corner: int) -> int:
    """Return that of the three which is nearest to `left + above - corner`; section 9.4 fixes the order of ties."""
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
