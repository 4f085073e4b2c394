"""What every face embedder promises."""

import asyncio
from typing import ClassVar

import numpy as np
import pytest

from application.conformance.contract import Contract
from application.conformance.event_loop import assert_not_blocked
from application.conformance.photographs import BLANK_WEBP, BLANK_WEBP_SIZE, Photographs
from application.ports.errors import PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from domain.embedding import Embedding
from domain.errors import (
    ImageFormatUnsupported,
    ImageRefused,
    ImageTooLarge,
    ImageTruncated,
    NotAnImage,
    TooManyPixels,
)
from domain.face import Analysis, Embed, Face

TOLERANCE = 1e-5
"""By how much a number of a vector may differ from call to call: what the port promises."""

NO_IMAGES = {
    "nothing": b"",
    "text": b"hello",
    "zeros": bytes(4096),
    "markup": b"<!doctype html><title>404</title>",
    "JSON": b'{"image": null}',
}


class FaceEmbedderContract(Contract):
    """Give `embedder`; where it outlives a single test, give `closable` too.

    What it looks at are the photographs that come with two packages; give `photographs` to use others, or those that
    an embedder for tests makes up.
    """

    at_once: ClassVar[int] = 8
    """Calls that the embedder takes at once, none of which is refused as too many."""
    longest_block: ClassVar[float] = 0.05
    """Seconds for which it may keep the event loop from turning while it works on `at_once` photographs."""
    most_bytes: ClassVar[int] = 10 * 2**20
    """Of one image, that it takes."""
    takes_files: ClassVar[bool] = True
    """Whether it takes JPEG, PNG and WebP; false for one that looks at made-up pictures in a form of their own."""

    @pytest.fixture
    def embedder(self) -> FaceEmbedder:
        """Return the embedder; the tests leave it open."""
        raise NotImplementedError("give your contract test the fixture `embedder`")

    @pytest.fixture
    def closable(self, embedder: FaceEmbedder) -> FaceEmbedder:
        """Return an embedder that a test may close; by default `embedder`, which is made anew for each test."""
        return embedder

    @pytest.fixture
    def photographs(self) -> Photographs:
        """Return what is looked at."""
        return Photographs.of_samples()

    async def test_every_embedding_is_one_of_the_space(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        space = embedder.space
        for image in (photographs.person, photographs.group):
            for embedding in embeddings(await embedder.analyse(image, embed=Embed.ALL)):
                assert embedding.space == space.id
                assert embedding.dimension == space.dimension
                assert float(np.linalg.norm(embedding.vector.astype(np.float64))) == pytest.approx(1.0, abs=TOLERANCE)
        assert embedder.space == space

    async def test_a_face_is_described_within_its_image(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        for image in (photographs.person, photographs.again, photographs.other, photographs.group):
            seen = await embedder.analyse(image, embed=Embed.NONE)
            assert seen.faces
            for face in seen.faces:
                assert 0.0 <= face.box.left < face.box.right <= seen.width
                assert 0.0 <= face.box.top < face.box.bottom <= seen.height
                assert 0.0 <= face.confidence <= 1.0
                assert 0.0 <= face.quality.score <= 1.0

    async def test_landmarks_are_where_a_face_has_them(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        for image in (photographs.person, photographs.other):
            (face,) = (await embedder.analyse(image, embed=Embed.NONE)).faces
            points = face.landmarks
            assert all(
                face.box.left < point.x < face.box.right and face.box.top < point.y < face.box.bottom
                for point in points.points()
            )
            assert points.left_eye.x < points.nose.x < points.right_eye.x
            assert points.left_mouth.x < points.right_mouth.x
            assert points.left_eye.y < points.nose.y < points.left_mouth.y
            assert points.right_eye.y < points.nose.y < points.right_mouth.y

    async def test_faces_come_largest_first(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        seen = await embedder.analyse(photographs.group, embed=Embed.NONE)
        areas = [face.box.area for face in seen.faces]
        assert len(areas) >= 3
        assert areas == sorted(areas, reverse=True)

    async def test_nobody_is_an_empty_tuple(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        for embed in Embed:
            seen = await embedder.analyse(photographs.nobody, embed=embed)
            assert seen.faces == ()
            assert min(seen.width, seen.height) > 0

    @pytest.mark.parametrize("embed", Embed)
    async def test_of_several_faces_those_are_embedded_that_were_asked_for(
        self, embedder: FaceEmbedder, photographs: Photographs, embed: Embed
    ) -> None:
        seen = await embedder.analyse(photographs.group, embed=embed)
        wanted = {Embed.NONE: 0, Embed.LARGEST: 1, Embed.ONLY: 0, Embed.ALL: len(seen.faces)}[embed]
        assert [face.embedding is not None for face in seen.faces] == [
            index < wanted for index in range(len(seen.faces))
        ]

    @pytest.mark.parametrize("embed", Embed)
    async def test_a_single_face_is_embedded_unless_none_is_asked_for(
        self, embedder: FaceEmbedder, photographs: Photographs, embed: Embed
    ) -> None:
        (face,) = (await embedder.analyse(photographs.person, embed=embed)).faces
        assert (face.embedding is not None) == (embed is not Embed.NONE)

    async def test_one_person_is_nearer_to_themselves_than_to_somebody_else(
        self, embedder: FaceEmbedder, photographs: Photographs
    ) -> None:
        person, again, other = [
            await embedder.analyse(image, embed=Embed.ONLY)
            for image in (photographs.person, photographs.again, photographs.other)
        ]
        assert similarity(person, again) > similarity(person, other)
        assert similarity(person, again) > similarity(again, other)

    async def test_people_in_one_image_are_told_apart(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        found = embeddings(await embedder.analyse(photographs.group, embed=Embed.ALL))
        vectors = np.stack([embedding.vector for embedding in found])
        others = ~np.eye(len(found), dtype=bool)
        assert (vectors @ vectors.T)[others].max() < 1.0 - 100 * TOLERANCE

    async def test_the_same_bytes_give_the_same_faces(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        for image in (photographs.person, photographs.group):
            first = await embedder.analyse(image, embed=Embed.ALL)
            assert_same(first, await embedder.analyse(image, embed=Embed.ALL))

    async def test_a_face_is_the_same_alone_and_among_others(
        self, embedder: FaceEmbedder, photographs: Photographs
    ) -> None:
        alone = await embedder.analyse(photographs.group, embed=Embed.LARGEST)
        together = await embedder.analyse(photographs.group, embed=Embed.ALL)
        assert len(alone.faces) == len(together.faces)
        np.testing.assert_allclose(
            embeddings(together)[0].vector, embeddings(alone)[0].vector, rtol=0.0, atol=TOLERANCE
        )

    async def test_what_is_embedded_changes_no_face(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        plain, full = [await embedder.analyse(photographs.group, embed=embed) for embed in (Embed.NONE, Embed.ALL)]
        for one, other in zip(plain.faces, full.faces, strict=True):
            assert_same_face(one, other)

    async def test_calls_at_once_do_not_disturb_each_other(
        self, embedder: FaceEmbedder, photographs: Photographs
    ) -> None:
        images = (photographs.person, photographs.group, photographs.other, photographs.nobody, photographs.again)
        alone = [await embedder.analyse(image, embed=Embed.ALL) for image in images]
        for _ in range(3):
            chosen = [index % len(images) for index in range(self.at_once)]
            together = await asyncio.gather(*(embedder.analyse(images[index], embed=Embed.ALL) for index in chosen))
            for index, seen in zip(chosen, together, strict=True):
                assert_same(alone[index], seen)

    async def test_a_refused_image_harms_no_other(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        alone = await embedder.analyse(photographs.person, embed=Embed.ALL)
        refused = (b"hello", photographs.person[: len(photographs.person) // 2], photographs.too_many_pixels)
        seen, *errors = await asyncio.gather(
            *(embedder.analyse(image, embed=Embed.ALL) for image in (photographs.person, *refused)),
            return_exceptions=True,
        )
        assert isinstance(seen, Analysis)
        assert_same(alone, seen)
        assert all(isinstance(error, ImageRefused) for error in errors)
        assert_same(alone, await embedder.analyse(photographs.person, embed=Embed.ALL))

    async def test_a_cancelled_call_harms_no_later_one(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        alone = await embedder.analyse(photographs.person, embed=Embed.ALL)
        calls = [asyncio.create_task(embedder.analyse(photographs.group, embed=Embed.ALL)) for _ in range(self.at_once)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert_same(alone, await embedder.analyse(photographs.person, embed=Embed.ALL))

    async def test_every_orientation_shows_the_same_upright_face(
        self, embedder: FaceEmbedder, photographs: Photographs
    ) -> None:
        upright = await embedder.analyse(photographs.person, embed=Embed.ONLY)
        assert photographs.turned
        for image in photographs.turned.values():
            assert_same(upright, await embedder.analyse(image, embed=Embed.ONLY))

    async def test_the_orientation_of_a_jpeg_is_applied(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        plain = await embedder.analyse(photographs.group, embed=Embed.NONE)
        for orientation, image in photographs.tagged.items():
            seen = await embedder.analyse(image, embed=Embed.NONE)
            if orientation >= 5:
                assert (seen.width, seen.height) == (plain.height, plain.width)
            else:
                assert (seen.width, seen.height) == (plain.width, plain.height)
            if orientation == 2:
                assert_mirrored(plain, seen)

    async def test_webp_is_taken(self, embedder: FaceEmbedder) -> None:
        if not self.takes_files:
            pytest.skip("this embedder looks at pictures that are made up")
        seen = await embedder.analyse(BLANK_WEBP, embed=Embed.ALL)
        assert ((seen.width, seen.height), seen.faces) == (BLANK_WEBP_SIZE, ())

    @pytest.mark.parametrize("image", NO_IMAGES.values(), ids=NO_IMAGES.keys())
    async def test_what_is_no_image_is_refused(self, embedder: FaceEmbedder, image: bytes) -> None:
        with pytest.raises(NotAnImage):
            await embedder.analyse(image, embed=Embed.NONE)

    @pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
    async def test_a_truncated_image_is_refused(
        self, embedder: FaceEmbedder, photographs: Photographs, share: float
    ) -> None:
        for image in (photographs.person, photographs.group):
            with pytest.raises(ImageTruncated):
                await embedder.analyse(image[: int(len(image) * share)], embed=Embed.ALL)

    async def test_too_many_pixels_are_refused_by_the_header(
        self, embedder: FaceEmbedder, photographs: Photographs
    ) -> None:
        with pytest.raises(TooManyPixels):
            await embedder.analyse(photographs.too_many_pixels, embed=Embed.NONE)

    async def test_too_many_bytes_are_refused(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        with pytest.raises(ImageTooLarge):
            await embedder.analyse(photographs.person.ljust(self.most_bytes + 1, b"\x00"), embed=Embed.NONE)

    async def test_another_format_is_refused_by_name(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        with pytest.raises(ImageFormatUnsupported):
            await embedder.analyse(photographs.foreign, embed=Embed.NONE)

    async def test_the_event_loop_goes_on_turning(self, embedder: FaceEmbedder, photographs: Photographs) -> None:
        await assert_not_blocked(
            lambda: asyncio.gather(
                *(embedder.analyse(photographs.group, embed=Embed.ALL) for _ in range(self.at_once))
            ),
            longest=self.longest_block,
        )

    async def test_closing_lets_running_work_end(self, closable: FaceEmbedder, photographs: Photographs) -> None:
        alone = await closable.analyse(photographs.group, embed=Embed.ALL)
        running = asyncio.create_task(closable.analyse(photographs.group, embed=Embed.ALL))
        await asyncio.sleep(0)
        await closable.close()
        try:
            seen = await running
        except PortUnavailable:
            return  # it had not begun
        assert_same(alone, seen)

    async def test_close_twice(self, closable: FaceEmbedder) -> None:
        await closable.close()
        await closable.close()


def embeddings(seen: Analysis) -> list[Embedding]:
    """Return those that were made, in the order of their faces."""
    return [face.embedding for face in seen.faces if face.embedding is not None]


def similarity(one: Analysis, other: Analysis) -> float:
    """Return the cosine between the one face of each."""
    (first,), (second,) = embeddings(one), embeddings(other)
    return float(first.vector.astype(np.float64) @ second.vector)


def assert_same(expected: Analysis, seen: Analysis) -> None:
    """Two looks at the same picture."""
    assert (seen.width, seen.height) == (expected.width, expected.height)
    for one, other in zip(expected.faces, seen.faces, strict=True):
        assert_same_face(one, other)
    for first, second in zip(embeddings(expected), embeddings(seen), strict=True):
        np.testing.assert_allclose(second.vector, first.vector, rtol=0.0, atol=TOLERANCE)


def assert_same_face(expected: Face, seen: Face) -> None:
    """The same face, whatever of it was embedded."""
    assert corners(seen) == pytest.approx(corners(expected), abs=0.01)
    for one, other in zip(expected.landmarks.points(), seen.landmarks.points(), strict=True):
        assert (other.x, other.y) == pytest.approx((one.x, one.y), abs=0.01)
    assert seen.confidence == pytest.approx(expected.confidence, abs=1e-3)
    assert seen.quality.reasons == expected.quality.reasons


def assert_mirrored(expected: Analysis, seen: Analysis) -> None:
    """The same faces from right to left, as well as a detector finds them that way round."""
    assert len(seen.faces) == len(expected.faces)
    for face in expected.faces:
        centre = (expected.width - (face.box.left + face.box.right) / 2, (face.box.top + face.box.bottom) / 2)
        assert any(
            other.box.left < centre[0] < other.box.right and other.box.top < centre[1] < other.box.bottom
            for other in seen.faces
        )


def corners(face: Face) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of its box."""
    return (face.box.left, face.box.top, face.box.right, face.box.bottom)
