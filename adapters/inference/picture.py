"""From an encoded image to upright pixels, whole or not at all."""

import io
from typing import Final, final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin

from adapters.inference.image_header import ImageFormat, ImageLimits, read_header, upright
from domain.errors import ImageTruncated

Pixels = NDArray[np.uint8]
"""H x W x 3, RGB, contiguous."""

FACTORS: Final = (8, 4, 2, 1)
"""By which a JPEG can be reduced while it is decoded, nearly for free: the discrete cosine transform scales."""
_COEFFICIENTS: Final = 0.6
"""What a progressive JPEG holds of its full size while it is decoded, however small the result: up to 6 bytes a
pixel against the 10 that stand for 1 (a decoded image of 4 and the array of 3, with head room)."""
_STRIP: Final = 1 << 22
"""Pixels that go from the decoder's image into the array at once, so that no second copy of all of them is made."""


@final
class Picture:
    """An image whose header was read. Decodes as often as asked and keeps nothing."""

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        """Read the header. Raises what `read_header` raises."""
        self._header = read_header(data, limits)
        self.width, self.height = upright(self._header.width, self._header.height, self._header.orientation)

    def factor(self, *, longest: float) -> int:
        """Return the largest reduction that leaves the longest side at `longest` pixels or more.

        1 for PNG and WebP, whose decoders know no reduction.
        """
        if self._header.format is not ImageFormat.JPEG:
            return 1
        side = max(self.width, self.height)
        return next((factor for factor in FACTORS if side >= longest * factor), 1)

    def factor_within(self, coarseness: float) -> int:
        """Return the largest reduction that is not above `coarseness`; 1 for PNG and WebP."""
        if self._header.format is not ImageFormat.JPEG:
            return 1
        return next((factor for factor in FACTORS if factor <= coarseness), 1)

    def cost(self, factor: int) -> float:
        """Megapixels that decoding at `factor` takes of a `DecodeBudget`."""
        whole = self._header.width * self._header.height / 1e6
        return whole / factor**2 + (whole * _COEFFICIENTS if self._header.progressive else 0.0)

    def decoded(self, factor: int = 1) -> Pixels:
        """Decode, each side divided by `factor` and rounded up, orientation applied.

        Grey, palette, CMYK and 16-bit images become 8-bit RGB. Transparency is dropped: colours count as stored.

        Raises:
            ImageTruncated: the data end too early or are damaged.
        """
        try:
            stored = self._webp() if self._header.format is ImageFormat.WEBP else self._with_pillow(factor)
        except (OSError, SyntaxError, ValueError, IndexError, cv2.error) as error:
            raise ImageTruncated("the image is cut off or damaged") from error
        return _turned(stored, self._header.orientation)

    def _with_pillow(self, factor: int) -> Pixels:
        # The plugins themselves, not Image.open: no guessing, no limits of its own, no multi-picture detour. OpenCV
        # decodes in half the time, but writes to stderr about every damaged image.
        stream = io.BytesIO(self._header.stripped)
        if self._header.format is ImageFormat.PNG:
            return _array(PngImagePlugin.PngImageFile(stream))
        image = JpegImagePlugin.JpegImageFile(stream)
        if factor > 1:
            image.draft("RGB", (-(-image.width // factor), -(-image.height // factor)))
        return _array(image)

    def _webp(self) -> Pixels:
        # OpenCV: an eighth of Pillow's time and a third of its memory, and silent about damage.
        encoded = np.frombuffer(self._header.stripped, np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None or image.shape[:2] != (self._header.height, self._header.width):
            raise ImageTruncated("the image is cut off or damaged")
        return np.asarray(image, np.uint8)


def _array(image: Image.Image) -> Pixels:
    with image:
        image.load()
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        ready = image if image.mode == "RGB" else image.convert("RGB")
        if ready.width * ready.height <= _STRIP:
            return np.asarray(ready)
        whole = np.empty((ready.height, ready.width, 3), np.uint8)
        rows = max(1, _STRIP // ready.width)
        for top in range(0, ready.height, rows):
            bottom = min(top + rows, ready.height)
            whole[top:bottom] = np.asarray(ready.crop((0, top, ready.width, bottom)))
        return whole


def _turned(stored: Pixels, orientation: int) -> Pixels:
    """EXIF 2.32, table 6: what each orientation asks for."""
    if orientation == 1:
        return stored
    view = stored.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else stored
    if orientation in (3, 4, 7, 8):
        view = view[::-1]
    if orientation in (2, 3, 6, 7):
        view = view[:, ::-1]
    return np.ascontiguousarray(view)
