import asyncio
import io
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.e2e.conftest import Keys, jpeg
from tests.e2e.running_service import RunningService
from tests.e2e.wire import encoded, form, is_problem, spoken

NOBODY = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"


@pytest.fixture(autouse=True)
def _nothing_stored(service: RunningService, gallery: str) -> Iterator[None]:
    """Whatever a test here sends, the service keeps nothing of it. (The gallery is the test's own.)"""
    assert gallery
    before = service.stored()
    yield
    assert service.stored() == before


def as_format(image: bytes, name: str) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(image)).save(out, name)
    return out.getvalue()


def bomb(side: int = 20_000) -> bytes:
    """A PNG of 400 megapixels in some 400 KB: all black, well-formed to the last checksum."""
    packer = zlib.compressobj(9)
    row = b"\x00" * (1 + side * 3)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


NO_IMAGES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "not_an_image"),
    "text": (b"certainly not an image", 422, "not_an_image"),
    "zeros": (bytes(5000), 422, "not_an_image"),
    "gif": (b"GIF89a" + bytes(200), 415, "image_format_unsupported"),
    "bmp": (b"BM" + bytes(200), 415, "image_format_unsupported"),
    "tiff": (b"II*\x00" + bytes(200), 415, "image_format_unsupported"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", 415, "image_format_unsupported"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "image_format_unsupported"),
    "jpeg's first bytes": (b"\xff\xd8\xff\xe0", 422, "image_truncated"),
    "png's first bytes": (b"\x89PNG\r\n\x1a\n", 422, "image_truncated"),
    "webp's first bytes": (b"RIFF\x00\x00\x00\x00WEBP", 422, "image_truncated"),
}
TURNED_AWAY = "Ahmad_Masood/Ahmad_Masood_0002.jpg"
"""A photograph of LFW with one face, in profile."""

READERS = ["references", "detect", "compare", "verify", "search", "embed"]


def sent_to(client: httpx.Client, reader: str, gallery: str, image: bytes, *, as_json: bool) -> httpx.Response:
    """Send an image to one of the routes that read images."""
    paths = {
        "references": f"{gallery}/references",
        "detect": "/faces/detect",
        "compare": "/faces/compare",
        "verify": "/verify",
        "search": "/search",
        "embed": "/faces/embed",
    }
    second = {"compare", "verify"} & {reader}
    if as_json:
        both = {"image": encoded(image), **({"other_image": encoded(image)} if second else {})}
        return client.post(paths[reader], json=both)
    files = {"image": ("a.jpg", image), **({"other_image": ("b.jpg", image)} if second else {})}
    return client.post(paths[reader], files=files)


class TestImages:
    @pytest.mark.parametrize("as_json", [False, True], ids=["form", "json"])
    @pytest.mark.parametrize("reader", READERS)
    @pytest.mark.parametrize("what", NO_IMAGES)
    def test_what_is_no_image_is_refused(
        self,
        client: httpx.Client,
        gallery: str,
        what: str,
        reader: str,
        as_json: bool,  # noqa: FBT001 - parametrised
    ) -> None:
        content, status, code = NO_IMAGES[what]
        is_problem(sent_to(client, reader, gallery, content, as_json=as_json), status, code)

    @pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
    def test_a_truncated_image_is_refused(
        self, client: httpx.Client, gallery: str, astronaut: bytes, name: str, share: float
    ) -> None:
        whole = as_format(astronaut, name)
        answer = client.post(f"{gallery}/references", files={"image": whole[: int(len(whole) * share)]})
        is_problem(answer, 422, "image_truncated")

    def test_a_decompression_bomb_is_refused_before_it_is_decoded(
        self, client: httpx.Client, service: RunningService, gallery: str, astronaut: bytes
    ) -> None:
        content = bomb()
        assert 300_000 < len(content) < 2_000_000
        # Once before, so that what a first request needs is not counted.
        client.post("/faces/detect", files={"image": astronaut})
        before = service.peak_memory()
        is_problem(client.post(f"{gallery}/references", files={"image": content}), 413, "too_many_pixels")
        is_problem(client.post("/search", json={"image": encoded(content)}), 413, "too_many_pixels")
        assert service.peak_memory() - before < 50 * 2**20

    def test_an_image_of_too_many_bytes_is_refused(self, client: httpx.Client, gallery: str, astronaut: bytes) -> None:
        heavy = astronaut + bytes(10 * 2**20)
        is_problem(client.post(f"{gallery}/references", files={"image": heavy}), 413, "image_too_large")
        is_problem(client.post("/search", json={"image": encoded(heavy)}), 413, "image_too_large")
        batch = {"items": [{"image": encoded(heavy), "other_image": encoded(astronaut)}]}
        is_problem(client.post("/verify/batch", json=batch), 413, "image_too_large")

    @pytest.mark.parametrize("reader", ["references", "compare", "verify", "search"])
    def test_an_image_without_a_face_is_refused(
        self, client: httpx.Client, gallery: str, faceless: bytes, reader: str
    ) -> None:
        is_problem(sent_to(client, reader, gallery, faceless, as_json=False), 422, "face_not_found")

    def test_several_faces_are_refused_where_one_is_wanted(
        self, client: httpx.Client, gallery: str, group: bytes
    ) -> None:
        is_problem(client.post(f"{gallery}/references", files={"image": group}), 422, "multiple_faces")

    def test_several_images_of_which_none_will_do_make_nobody(
        self, client: httpx.Client, gallery: str, group: bytes, faceless: bytes
    ) -> None:
        files = [("image", ("a.jpg", group)), ("image", ("b.jpg", faceless)), ("image", ("c.txt", b"x"))]
        answer = client.post(f"{gallery}/references", files=files, data={"external_id": "nobody"})
        problem = is_problem(answer, 422, "nothing_accepted")
        assert [(one["index"], one["filename"], one["code"]) for one in problem["rejected"]] == [
            (0, "a.jpg", "multiple_faces"),
            (1, "b.jpg", "face_not_found"),
            (2, "c.txt", "not_an_image"),
        ]

    @pytest.mark.parametrize("how", ["too_dark", "low_sharpness", "face_too_small", "low_contrast", "too_bright"])
    def test_a_face_that_cannot_be_compared_is_refused(
        self, client: httpx.Client, gallery: str, astronaut: bytes, how: str
    ) -> None:
        picture = Image.open(io.BytesIO(astronaut)).convert("RGB")
        pixels = np.asarray(picture).astype(np.float32)
        spoilt = {
            "too_dark": lambda: pixels * 0.06,
            "low_sharpness": lambda: np.asarray(picture.filter(ImageFilter.GaussianBlur(7))),
            "face_too_small": lambda: np.asarray(picture.resize((100, 100))),
            "low_contrast": lambda: 128 + (pixels - 128) * 0.08,
            "too_bright": lambda: 255 - (255 - pixels) * 0.05,
        }[how]()
        image = jpeg(np.clip(spoilt, 0, 255).astype(np.uint8))
        answer = client.post(f"{gallery}/references", files={"image": image})
        problem = is_problem(answer, 422, answer.json()["code"])
        # A face that is spoilt in one way is so in others: the worst is the code, the message names all.
        assert how == problem["code"] or how in problem["detail"], answer.text

    def test_a_face_that_is_turned_away_is_refused(self, client: httpx.Client, gallery: str, lfw: Path) -> None:
        turned = lfw / TURNED_AWAY
        is_problem(client.post(f"{gallery}/references", files={"image": turned.read_bytes()}), 422, "extreme_pose")


WRONG: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("/galleries", "missing", {}, "name"),
    ("/galleries", "wrong type", {"name": 7}, "name"),
    ("/galleries", "unknown", {"name": "a", "colour": "red"}, "colour"),
    ("/galleries", "unknown inside", {"name": "a", "policy": {"colour": 1}}, "policy.colour"),
    ("/galleries", "wrong type inside", {"name": "a", "policy": {"target_fmr": "x"}}, "policy.target_fmr"),
    ("/galleries", "rate of 0", {"name": "a", "policy": {"target_fmr": 0}}, "policy.target_fmr"),
    ("/galleries", "rate of 1", {"name": "a", "policy": {"target_fpir": 1}}, "policy.target_fpir"),
    ("/galleries", "threshold of 2", {"name": "a", "policy": {"search_threshold": 2}}, "policy.search_threshold"),
    ("/galleries", "unknown reason", {"name": "a", "policy": {"refused_reasons": ["x"]}}, "policy.refused_reasons"),
    ("{g}/people", "unknown", {"name": "x"}, "name"),
    ("{g}/people", "wrong type", {"external_id": 7}, "external_id"),
    ("{g}/people", "empty", {"external_id": ""}, "external_id"),
    ("{g}/people", "long", {"external_id": "x" * 256}, "external_id"),
    ("{g}/people", "NUL", {"external_id": "a\x00b"}, "external_id"),
    ("{g}/people", "control", {"external_id": "a\x1b[31m"}, "external_id"),
    ("{g}/people", "space at its end", {"external_id": "a "}, "external_id"),
    ("{g}/people", "numbers", {"metadata": {"a": 1}}, "metadata"),
    ("{g}/people", "NUL inside", {"metadata": {"a": "\x00"}}, "metadata"),
    ("{g}/people", "many", {"metadata": {str(n): "" for n in range(51)}}, "metadata"),
    ("{g}/people", "long value", {"metadata": {"a": "x" * 1025}}, "metadata.a"),
    ("{g}/people", "long key", {"metadata": {"x" * 65: ""}}, "metadata"),
    ("{g}/references", "no image", {}, "image"),
    ("{g}/references", "no images", {"images": []}, "image"),
    ("{g}/references", "both", {"image": "AA==", "images": ["AA=="]}, "image"),
    ("{g}/references", "wrong type", {"image": 7}, "image"),
    ("{g}/references", "no base64", {"image": "§§§"}, "image"),
    ("{g}/references", "no base64 inside", {"images": ["AA==", "A"]}, "images[1]"),
    ("{g}/references", "malformed id", {"image": "AA==", "person_id": "x"}, "person_id"),
    ("{g}/references", "two names", {"image": "AA==", "person_id": NOBODY, "external_id": "x"}, "external_id"),
    ("{g}/references/batch", "missing", {}, "items"),
    ("{g}/references/batch", "none", {"items": []}, "items"),
    ("{g}/references/batch", "unknown inside", {"items": [{}, {"x": 1}]}, "items[1].x"),
    ("/verify", "nobody", {"image": "AA=="}, "person_id"),
    ("/verify", "two people", {"image": "AA==", "person_id": NOBODY, "external_id": "x"}, "person_id"),
    ("/verify", "threshold of 2", {"image": "AA==", "external_id": "x", "threshold": 2}, "threshold"),
    ("/verify", "rate of 0", {"image": "AA==", "external_id": "x", "target_fmr": 0}, "target_fmr"),
    ("/verify", "huge threshold", {"image": "AA==", "external_id": "x", "threshold": 1e308}, "threshold"),
    ("/search", "no image", {}, "image"),
    ("/search", "limit of 0", {"image": "AA==", "limit": 0}, "limit"),
    ("/search", "limit of 101", {"image": "AA==", "limit": 101}, "limit"),
    ("/search", "negative limit", {"image": "AA==", "limit": -5}, "limit"),
    ("/search", "half a limit", {"image": "AA==", "limit": 1.5}, "limit"),
    ("/search", "huge limit", {"image": "AA==", "limit": 10**40}, "limit"),
    ("/search", "rate above 1", {"image": "AA==", "target_fpir": 1.5}, "target_fpir"),
    ("/search", "wrong word", {"image": "AA==", "faces": "some"}, "faces"),
    ("/search", "wrong people", {"image": "AA==", "people": ["x"]}, "people[0]"),
    ("/search", "wrong gallery", {"image": "AA==", "gallery": 7}, "gallery"),
    ("/faces/compare", "no second", {"image": "AA=="}, "other_image"),
    ("/faces/detect", "several", {"images": ["AA==", "AA=="]}, "image"),
    ("{g}/people/{n}/merge", "missing", {}, "person_id"),
)


class TestFields:
    @pytest.mark.parametrize(
        ("path", "body", "field"),
        [(path, body, field) for path, _, body, field in WRONG],
        ids=[f"{path} {what}" for path, what, _, _ in WRONG],
    )
    def test_what_is_wrong_is_named(
        self, client: httpx.Client, gallery: str, path: str, body: dict[str, Any], field: str
    ) -> None:
        answer = client.post(path.format(g=gallery, n=NOBODY), json=body)
        is_problem(answer, 422, "invalid_value", field=field)

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "nan", "inf", "0x1"])
    @pytest.mark.parametrize("field", ["threshold", "target_fpir", "limit"])
    def test_a_number_that_is_none_is_refused(
        self, client: httpx.Client, gallery: str, astronaut: bytes, field: str, number: str
    ) -> None:
        name = gallery.rpartition("/")[2]
        formed = client.post("/search", files={"image": astronaut}, data={"gallery": name, field: number})
        is_problem(formed, 422, "invalid_value", field=field)
        raw = f'{{"gallery": "{name}", "image": "{encoded(astronaut)}", "{field}": {number}}}'
        sent = client.post("/search", content=raw, headers={"Content-Type": "application/json"})
        is_problem(sent, 422, "invalid_value")

    def test_too_many_items_are_refused(self, client: httpx.Client, gallery: str) -> None:
        items = [{"image": "AA=="}] * 101
        for path in (f"{gallery}/references/batch", "/search/batch", "/verify/batch"):
            is_problem(client.post(path, json={"items": items}), 422, "too_many_items")
        is_problem(client.post(f"{gallery}/references", json={"images": ["AA=="] * 101}), 422, "too_many_items")
        is_problem(client.post("/search", json={"images": ["AA=="] * 11}), 422, "too_many_items")

    @pytest.mark.parametrize("text", ["a\x00b", "\x1b", "x" * 100_000, "' OR 1=1 --", "\u202e", "ä" * 300])
    def test_a_hostile_name_of_a_person_finds_nobody(
        self, client: httpx.Client, gallery: str, astronaut: bytes, text: str
    ) -> None:
        name = gallery.rpartition("/")[2]
        body = {"gallery": name, "image": encoded(astronaut), "external_id": text}
        answer = client.post("/verify", json=body)
        assert answer.status_code in {404, 422}, answer.text
        is_problem(answer, answer.status_code, answer.json()["code"])
        if len(text) < 10_000:
            listed = client.get(f"{gallery}/people", params={"external_id": text})
            assert listed.status_code in {200, 422}, listed.text
            assert listed.json().get("items", []) == []

    @pytest.mark.parametrize(
        "raw", [rb'{"external_id": "\ud800"}', b'{"external_id": "\xed\xa0\x80"}', b'{"external_id": "\xff"}']
    )
    def test_half_a_character_is_refused(self, client: httpx.Client, gallery: str, raw: bytes) -> None:
        answer = client.post(f"{gallery}/people", content=raw, headers={"Content-Type": "application/json"})
        is_problem(answer, 422, "invalid_value")


class TestIds:
    @pytest.mark.parametrize(
        ("method", "path", "code"),
        [
            ("GET", "/galleries/missing", "gallery_not_found"),
            ("GET", f"/galleries/{NOBODY}", "gallery_not_found"),
            ("PATCH", "/galleries/missing", "gallery_not_found"),
            ("DELETE", "/galleries/missing", "gallery_not_found"),
            ("POST", "/galleries/missing/people", "gallery_not_found"),
            ("GET", "/galleries/missing/people", "gallery_not_found"),
            ("GET", "/galleries/missing/references", "gallery_not_found"),
            ("GET", "/galleries/..%2f..%2fetc/people", "not_found"),
            ("GET", "/galleries/%ff%fe/people", "gallery_not_found"),
            ("GET", f"/galleries/{'x' * 5000}/people", "gallery_not_found"),
            ("GET", f"{{g}}/people/{NOBODY}", "person_not_found"),
            ("PATCH", f"{{g}}/people/{NOBODY}", "person_not_found"),
            ("DELETE", f"{{g}}/people/{NOBODY}", "person_not_found"),
            ("GET", f"{{g}}/references/{NOBODY}", "reference_not_found"),
            ("GET", f"{{g}}/references/{NOBODY}/image", "reference_not_found"),
            ("DELETE", f"{{g}}/references/{NOBODY}", "reference_not_found"),
            ("GET", "{g}/people/17", "not_found"),
            ("GET", "{g}/references/not-an-id/image", "not_found"),
            ("GET", "/nowhere", "not_found"),
            ("GET", "/../../etc/passwd", "not_found"),
        ],
    )
    def test_what_is_not_there_is_not_found(
        self, client: httpx.Client, gallery: str, method: str, path: str, code: str
    ) -> None:
        body = {"json": {}} if method in {"POST", "PATCH"} else {}
        answer = client.request(method, path.format(g=gallery), **body)  # type: ignore[arg-type]  # keyword arguments
        assert (answer.status_code, answer.json()["code"]) == (404, code), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"

    @pytest.mark.parametrize("path", ["/galleries/%00/people", "{g}/people/%00", "{g}/people/a%0d%0ab"])
    def test_a_path_with_a_control_character_is_refused(self, client: httpx.Client, gallery: str, path: str) -> None:
        is_problem(client.get(path.format(g=gallery)), 400, "invalid_request")

    def test_enrolling_an_unknown_person_makes_nothing(
        self, client: httpx.Client, gallery: str, astronaut: bytes
    ) -> None:
        answer = client.post(f"{gallery}/references", files={"image": astronaut}, data={"person_id": NOBODY})
        is_problem(answer, 404, "person_not_found")

    @pytest.mark.parametrize("claim", [{"person_id": NOBODY}, {"external_id": "x"}, {"reference_id": NOBODY}])
    def test_verifying_an_unknown_person_is_not_found(
        self, client: httpx.Client, gallery: str, astronaut: bytes, claim: dict[str, str]
    ) -> None:
        fields = {"gallery": gallery.rpartition("/")[2], **claim}
        answer = client.post("/verify", files={"image": astronaut}, data=fields)
        is_problem(answer, 404, "reference_not_found" if "reference_id" in claim else "person_not_found")

    @pytest.mark.parametrize("person", ["", "x", "17", NOBODY + "0"])
    def test_a_malformed_filter_is_named(self, client: httpx.Client, gallery: str, person: str) -> None:
        answer = client.get(f"{gallery}/references", params={"person_id": person})
        is_problem(answer, 422, "invalid_value", field="person_id")


class TestBodies:
    @pytest.mark.parametrize(
        "raw",
        [b"", b"{", b"[]", b"null", b"7", b'"x"', b"{}}", b"\xff\xfe{", b'{"a": }', b"{" * 100_000, b"[" * 5_000_000],
    )
    def test_what_is_no_json_object_is_refused(self, client: httpx.Client, gallery: str, raw: bytes) -> None:
        for path in (f"{gallery}/people/{NOBODY}/merge", "/galleries", f"{gallery}/references/batch"):
            answer = client.post(path, content=raw, headers={"Content-Type": "application/json"})
            is_problem(answer, 422, "invalid_value")

    def test_deep_json_is_refused(self, client: httpx.Client, gallery: str) -> None:
        raw = b'{"metadata": ' + b'{"a": ' * 50_000 + b"1" + b"}" * 50_001
        answer = client.post(f"{gallery}/people", content=raw, headers={"Content-Type": "application/json"})
        is_problem(answer, 422, "invalid_value")
        formed = client.post(f"{gallery}/references", files={"image": b"x"}, data={"metadata": "[" * 100_000})
        is_problem(formed, 422, "invalid_value")

    @pytest.mark.parametrize(
        "kind",
        [
            "text/plain",
            "application/xml",
            "application/x-www-form-urlencoded",
            "image/jpeg",
            "multipart/mixed",
            "*/*",
            "x",
        ],
    )
    def test_another_media_type_is_refused(
        self, client: httpx.Client, gallery: str, astronaut: bytes, kind: str
    ) -> None:
        answer = client.post(f"{gallery}/references", content=astronaut, headers={"Content-Type": kind})
        is_problem(answer, 415, "unsupported_media_type")

    @pytest.mark.parametrize(
        "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"]
    )
    @pytest.mark.parametrize("raw", [b"", b"x" * 1000, form([('name="image"; filename="a"', b"x")])[0][:40]])
    def test_a_form_that_is_none_is_refused(self, client: httpx.Client, gallery: str, kind: str, raw: bytes) -> None:
        answer = client.post(f"{gallery}/references", content=raw, headers={"Content-Type": kind})
        assert 400 <= answer.status_code < 500, answer.text
        is_problem(answer, answer.status_code, answer.json()["code"])

    def test_a_form_with_many_parts_is_refused(self, client: httpx.Client, gallery: str) -> None:
        body, headers = form([(f'name="f{number}"', b"x") for number in range(2000)])
        answer = client.post(f"{gallery}/references", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        is_problem(answer, answer.status_code, answer.json()["code"])

    @pytest.mark.parametrize(
        ("parts", "field"),
        [
            (
                [('name="image"; filename="a"', b"x"), ('name="external_id"', b"a"), ('name="external_id"', b"b")],
                "external_id",
            ),
            ([('name="image"; filename="a"', b"x"), ('name="colour"', b"red")], "colour"),
            ([('name="image"; filename="a"', b"x"), ('name="colour"; filename="b"', b"red")], "colour"),
            ([('name="image"', b"text")], "image"),
            ([('name="images"', b"text")], "images"),
            ([('name="external_id"', b"x")], "image"),
            ([('name="image"; filename="a"', b"x"), ('name="metadata"', b"{")], "metadata"),
            ([('name="image"; filename="a"', b"x"), ('name="metadata"', b"text")], "metadata"),
            ([('name="image"; filename="a"', b"x"), ('name="person_id"', b"x")], "person_id"),
            ([('name="image"; filename="a"', b"x"), ('name="external_id"; filename="b"', b"x")], "external_id"),
            ([('name="image"; filename="a"', b"x"), ('name="external_id"', b"\x00")], "external_id"),
        ],
    )
    def test_a_wrong_part_of_a_form_is_named(
        self, client: httpx.Client, gallery: str, parts: list[tuple[str, bytes]], field: str
    ) -> None:
        body, headers = form(parts)
        answer = client.post(f"{gallery}/references", content=body, headers=headers)
        is_problem(answer, 422, "invalid_value", field=field)

    @pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xed\xa0\x80"])
    def test_text_of_a_form_that_is_no_utf_8_is_refused(
        self, client: httpx.Client, gallery: str, astronaut: bytes, raw: bytes
    ) -> None:
        body, headers = form([('name="image"; filename="a"', astronaut), ('name="external_id"', raw)])
        answer = client.post(f"{gallery}/references", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        is_problem(answer, answer.status_code, answer.json()["code"])

    @pytest.mark.parametrize("charset", ["nonsense", "utf-16", "base64", "\x00"])
    def test_text_of_a_form_in_another_character_set_does_no_harm(
        self, client: httpx.Client, gallery: str, charset: str
    ) -> None:
        head = f'name="external_id"\r\nContent-Type: text/plain; charset={charset}'
        body, headers = form([(head, b"abc"), ('name="image"; filename="a"', b"x")])
        answer = client.post(f"{gallery}/references", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        is_problem(answer, answer.status_code, answer.json()["code"])

    def test_a_file_without_a_name_is_told_what_it_needs(
        self, client: httpx.Client, gallery: str, astronaut: bytes
    ) -> None:
        body, headers = form([('name="image"', astronaut)])
        answer = client.post(f"{gallery}/references", content=body, headers=headers)
        assert "filename" in is_problem(answer, 422, "invalid_value")["detail"]

    def test_a_body_over_the_limit_is_refused(self, client: httpx.Client, gallery: str) -> None:
        heavy = b'{"image": "' + b"A" * (65 * 2**20) + b'"}'
        answer = client.post(f"{gallery}/references", content=heavy, headers={"Content-Type": "application/json"})
        is_problem(answer, 413, "body_too_large")

    @pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=edge"])
    def test_a_body_of_unknown_length_is_limited_too(
        self, service: RunningService, keys: Keys, gallery: str, kind: str
    ) -> None:
        head = (
            f"POST /api/v1{gallery}/references HTTP/1.1\nHost: x\nX-API-Key: {keys.mine}\n"
            f"Content-Type: {kind}\nTransfer-Encoding: chunked"
        )
        opening = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        piece = b"100000\r\n" + b"A" * 2**20 + b"\r\n"
        body = b"%x\r\n" % len(opening) + opening + b"\r\n" + piece * 70 + b"0\r\n\r\n"
        status, problem = spoken(service.url, head, body)
        # The connection may be closed before the answer is read: then there is none.
        assert status in {413, 0}
        assert problem.get("code", "body_too_large") == "body_too_large"

    @pytest.mark.parametrize("length", ["10", "100000000000", "-1", "x", "9" * 50])
    def test_a_length_that_lies_does_no_harm(
        self, service: RunningService, client: httpx.Client, keys: Keys, gallery: str, length: str
    ) -> None:
        head = (
            f"POST /api/v1{gallery}/people HTTP/1.1\nHost: x\nX-API-Key: {keys.mine}\n"
            f"Content-Type: application/json\nConnection: close\nContent-Length: {length}"
        )
        status, _ = spoken(service.url, head, b'{"external_id": "never made"}')
        assert status == 0 or 400 <= status < 500
        assert client.get(f"{gallery}/people").json()["items"] == []

    def test_a_client_that_goes_away_leaves_nothing(
        self, service: RunningService, client: httpx.Client, keys: Keys, gallery: str
    ) -> None:
        head = (
            f"POST /api/v1{gallery}/references HTTP/1.1\nHost: x\nX-API-Key: {keys.mine}\n"
            "Content-Type: multipart/form-data; boundary=edge\nContent-Length: 1000000"
        )
        status, _ = spoken(service.url, head, b"--edge\r\n")
        assert status == 0 or 400 <= status < 500
        assert client.get(gallery).status_code == 200

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "GET", "HEAD"])
    def test_another_method_is_refused(self, client: httpx.Client, method: str) -> None:
        answer = client.request(method, "/search")
        if method == "HEAD":
            assert (answer.status_code, answer.content) == (405, b"")
        else:
            is_problem(answer, 405, "method_not_allowed")
        assert "POST" in answer.headers["Allow"]

    def test_the_methods_of_a_path_can_be_asked_for(self, client: httpx.Client, gallery: str) -> None:
        answer = client.options(gallery)
        assert answer.status_code == 204
        assert "GET" in answer.headers["Allow"]
        refused = client.put(gallery)
        is_problem(refused, 405, "method_not_allowed")
        assert {"GET", "PATCH", "DELETE"} <= set(refused.headers["Allow"].split(", "))


class TestHeaders:
    @pytest.mark.parametrize(
        "given", [b"a b", b"x" * 65, "ä".encode(), b"<script>", b"a\tb", b"", b"../../etc", b'"', b"{}", b"a;b=c"]
    )
    def test_a_hostile_request_id_is_not_taken(self, client: httpx.Client, given: bytes) -> None:
        answer = client.get("/galleries", headers=[(b"X-Request-Id", given)])
        assert answer.headers["X-Request-Id"].encode() != given
        assert answer.status_code == 200

    def test_a_plain_request_id_is_taken_and_logged(self, client: httpx.Client, service: RunningService) -> None:
        mine = uuid4().hex
        answer = client.get("/galleries/missing", headers={"X-Request-Id": mine})
        assert answer.headers["X-Request-Id"] == mine
        assert is_problem(answer, 404, "gallery_not_found")["request_id"] == mine
        # The line is written once the answer is out.
        until = time.monotonic() + 10
        while mine.encode() not in service.logs.read_bytes():
            assert time.monotonic() < until
            time.sleep(0.01)


class TestFilenames:
    @pytest.fixture(autouse=True)
    def _nothing_stored(self) -> None:
        """These are accepted: what a file is called is no reason to refuse it."""

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("../../etc/passwd", "passwd"),
            ("C:\\\\temp\\\\me.jpg", "me.jpg"),
            ("/abs/me.jpg", "me.jpg"),
            ("me\x01\x1b.jpg", "me.jpg"),
            ("ä.jpg", "ä.jpg"),
            ("x" * 1000 + ".jpg", "x" * 255),
            ("..", ".."),
            ("<script>.jpg", "<script>.jpg"),
        ],
    )
    def test_a_file_keeps_its_own_name_alone(
        self, client: httpx.Client, service: RunningService, astronaut: bytes, sent: str, kept: str
    ) -> None:
        gallery = f"g{uuid4().hex}"
        client.post("/galleries", json={"name": gallery})
        body, headers = form([(f'name="image"; filename="{sent}"', astronaut)])
        answer = client.post(f"/galleries/{gallery}/references", content=body, headers=headers)
        assert answer.status_code == 201, answer.text
        assert [one["filename"] for one in answer.json()["accepted"]] == [kept]
        assert all(path.is_relative_to(service.data / "blobs") for path in service.files())
        assert not any("passwd" in path.name for path in service.data.rglob("*"))


async def test_many_bad_calls_at_once_leave_the_service_well(
    service: RunningService, keys: Keys, astronaut: bytes, gallery: str
) -> None:
    headers = {"X-API-Key": keys.mine}
    async with httpx.AsyncClient(base_url=f"{service.url}/api/v1", headers=headers, timeout=60.0) as client:
        bad = [client.post(f"{gallery}/references", files={"image": astronaut[: 40 * n]}) for n in range(60)]
        answers = await asyncio.gather(*bad)
        assert {one.status_code for one in answers} <= {422, 503}
        assert (await client.post("/faces/detect", files={"image": astronaut})).status_code == 200
