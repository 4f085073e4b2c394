from typing import Any

import msgspec
import pytest
from litestar import Litestar, Request, post
from litestar.datastructures import State
from litestar.testing import TestClient

from domain.errors import FacepassError, InvalidValue
from domain.gallery import Policy
from domain.quality import Reason
from entrypoints.http.bodies import (
    EnrolBody,
    GalleryBody,
    PersonChangeBody,
    PolicyBody,
    SearchBody,
    VerifyBatchBody,
    read_body,
    sent_images,
)
from entrypoints.http.names import gallery_named, page_size
from entrypoints.http.policies import policy_from
from entrypoints.http.problems import on_core_error, on_http_error

KINDS = {kind.__name__: kind for kind in (EnrolBody, GalleryBody, PersonChangeBody, SearchBody, VerifyBatchBody)}


@pytest.fixture(scope="module")
def client() -> Any:  # noqa: ANN401 - Litestar's generic test client
    """Reads a body of the kind in the path, and says what it understood."""

    @post("/{kind:str}")
    async def read(request: Request[Any, Any, Any]) -> dict[str, Any]:
        body = await read_body(request, KINDS[request.path_params["kind"]])
        images = sent_images(body.fields, body.filenames) if isinstance(body.fields, EnrolBody | SearchBody) else []
        return {
            "fields": msgspec.to_builtins(body.fields),
            "images": [(one.content.decode(), one.filename) for one in images],
        }

    app = Litestar(
        [read],
        state=State({"max_image_bytes": 100}),
        exception_handlers={FacepassError: on_core_error, **dict.fromkeys([Exception], on_http_error)},
    )
    with TestClient(app) as opened:
        yield opened


class TestForms:
    def test_one_file_is_an_image(self, client: TestClient[Litestar]) -> None:
        answer = client.post("/EnrolBody", files={"image": ("a.jpg", b"one")})
        assert answer.json()["images"] == [["one", "a.jpg"]]

    @pytest.mark.parametrize("names", [("image", "image"), ("images", "images"), ("image", "images")])
    def test_several_files_are_images_in_their_order(
        self, client: TestClient[Litestar], names: tuple[str, str]
    ) -> None:
        files = [(names[0], ("a.jpg", b"one")), (names[1], ("b.jpg", b"two"))]
        assert client.post("/EnrolBody", files=files).json()["images"] == [["one", "a.jpg"], ["two", "b.jpg"]]

    def test_fields_are_read_as_their_types(self, client: TestClient[Litestar]) -> None:
        sent = {"limit": "3", "threshold": "0.5", "faces": "all", "gallery": "7"}
        fields = client.post("/SearchBody", files={"image": b"x"}, data=sent).json()["fields"]
        assert (fields["limit"], fields["threshold"], fields["faces"], fields["gallery"]) == (3, 0.5, "all", "7")

    def test_text_that_looks_like_json_stays_text(self, client: TestClient[Litestar]) -> None:
        for text in ('{"a": 1}', "[1]", "null", "true", "17"):
            answer = client.post("/EnrolBody", files={"image": b"x"}, data={"external_id": text})
            assert answer.json()["fields"]["external_id"] == text

    def test_metadata_is_json(self, client: TestClient[Litestar]) -> None:
        answer = client.post("/EnrolBody", files={"image": b"x"}, data={"metadata": '{"team": "red"}'})
        assert answer.json()["fields"]["metadata"] == {"team": "red"}

    @pytest.mark.parametrize("separator", [",", ", ", " ,"])
    def test_people_may_be_listed_with_commas(self, client: TestClient[Litestar], separator: str) -> None:
        ids = ["01a1f9ba-6210-711f-a62a-9f40b20f2bb1", "01a1f9ba-61fc-72af-bb5e-d28ee338f0d9"]
        for text in (separator.join(ids), msgspec.json.encode(ids).decode()):
            answer = client.post("/SearchBody", files={"image": b"x"}, data={"people": text})
            assert answer.json()["fields"]["people"] == ids


class TestJson:
    def test_images_are_base64(self, client: TestClient[Litestar]) -> None:
        assert client.post("/EnrolBody", json={"image": "b25l"}).json()["images"] == [["one", None]]

    def test_null_and_missing_are_two_things(self, client: TestClient[Litestar]) -> None:
        assert client.post("/PersonChangeBody", json={"external_id": None}).json()["fields"] == {"external_id": None}
        assert client.post("/PersonChangeBody", json={}).json()["fields"] == {}

    @pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json", "APPLICATION/JSON"])
    def test_json_goes_by_several_names(self, client: TestClient[Litestar], kind: str) -> None:
        answer = client.post("/GalleryBody", content=b'{"name": "a"}', headers={"Content-Type": kind})
        assert answer.json()["fields"]["name"] == "a"

    @pytest.mark.parametrize(
        ("raw", "field"),
        [
            ("{}", "name"),
            ('{"name": 1}', "name"),
            ('{"name": "a", "x": 1}', "x"),
            ('{"name": "a", "policy": {"x": 1}}', "policy.x"),
            ('{"name": "a", "policy": {"target_fmr": []}}', "policy.target_fmr"),
            ('{"name": "a"', "body"),
            ("[]", "body"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_place(self, client: TestClient[Litestar], raw: str, field: str) -> None:
        answer = client.post("/GalleryBody", content=raw, headers={"Content-Type": "application/json"})
        assert (answer.status_code, [one["field"] for one in answer.json()["errors"]]) == (422, [field])

    @pytest.mark.parametrize("raw", ['{"items": [{"image": "%s"}]}', '{"items": [{"other_image": "%s"}]}'])
    def test_each_image_of_a_batch_is_measured(self, client: TestClient[Litestar], raw: str) -> None:
        for size, status in ((96, 201), (102, 413)):
            sent = raw % ("AAAA" * (size // 3))
            answer = client.post("/VerifyBatchBody", content=sent, headers={"Content-Type": "application/json"})
            assert answer.status_code == status


class TestPolicies:
    def test_what_is_left_out_stays(self) -> None:
        before = Policy(target_fmr=0.01, keep_images=False, refused_reasons=frozenset())
        assert policy_from(PolicyBody(), before) == before
        after = policy_from(PolicyBody(target_fmr=0.02, search_threshold=0.9), before)
        assert (after.target_fmr, after.search_threshold, after.keep_images) == (0.02, 0.9, False)

    def test_null_takes_a_fixed_threshold_away(self) -> None:
        assert policy_from(PolicyBody(search_threshold=None), Policy(search_threshold=0.9)).search_threshold is None

    def test_reasons_are_those_that_quality_knows(self) -> None:
        assert policy_from(PolicyBody(refused_reasons=["too_dark"]), Policy()).refused_reasons == {Reason.TOO_DARK}
        with pytest.raises(InvalidValue, match="ugly"):
            policy_from(PolicyBody(refused_reasons=["ugly"]), Policy())


def test_a_page_has_1_to_100_items() -> None:
    assert [page_size(limit) for limit in (1, 100)] == [1, 100]
    for limit in (0, -1, 101, 10**30):
        with pytest.raises(InvalidValue):
            page_size(limit)


def test_no_gallery_is_the_default_one() -> None:
    assert gallery_named(None) == "default"
