import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from application.conformance.photographs import Photographs, astronaut, sample, stored_as
from application.conformance.png import decoded_png, encoded_png, png


def opened(image: bytes) -> Image.Image:
    return Image.open(io.BytesIO(image))


def test_pixels_are_those_that_another_library_reads() -> None:
    with opened(sample("skimage", "data/astronaut.png")) as expected:
        np.testing.assert_array_equal(astronaut(), np.asarray(expected))


def rows_filtered(pixels: np.ndarray, method: int) -> bytes:
    """One row with a filter in front of the value that it leaves (W3C PNG, section 9.2)."""
    flat = pixels.reshape(len(pixels), -1).astype(int)
    left = np.pad(flat, ((0, 0), (3, 0)))[:, :-3]
    above = np.pad(flat, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(flat, ((1, 0), (3, 0)))[:-1, :-3]
    guess = left + above - corner
    nearest = np.abs(np.stack([guess - left, guess - above, guess - corner])).argmin(axis=0)
    paeth = np.choose(nearest, [left, above, corner])
    taken = [np.zeros_like(flat), left, above, (left + above) // 2, paeth][method]
    return np.insert((flat - taken) % 256, 0, method, axis=1).astype(np.uint8).tobytes()


@pytest.mark.parametrize("method", range(5))
def test_every_filter_is_undone(method: int) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    image = png(5, 7, (b"IDAT", zlib.compress(rows_filtered(pixels, method))))
    with opened(image) as read:
        np.testing.assert_array_equal(np.asarray(read), pixels)
    np.testing.assert_array_equal(decoded_png(image), pixels)


def test_another_kind_of_png_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "PNG")
    with pytest.raises(ValueError, match="8-bit RGB"):
        decoded_png(stream.getvalue())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_stored_turned_is_upright_for_another_library(orientation: int) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    with opened(encoded_png(stored_as(pixels, orientation), orientation=orientation)) as image:
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), pixels)


def test_a_tagged_jpeg_says_its_orientation_and_keeps_its_pixels() -> None:
    photographs = Photographs.of_samples()
    with opened(photographs.group) as plain:
        expected = np.asarray(plain)
    assert photographs.tagged
    for orientation, tagged in photographs.tagged.items():
        with opened(tagged) as image:
            assert image.getexif()[0x0112] == orientation
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_missing_package_is_named_with_the_way_out() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no_such_package.*facepass\[demo\].*photographs of your own"):
        sample("no_such_package", "data/face.png")
