import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import Keys
from tests.e2e.running_service import RunningService


def enrol(client: httpx.Client, gallery: str, image: bytes, **fields: str) -> dict[str, Any]:
    answer = client.post(f"{gallery}/references", files={"image": image}, data=fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def person(client: httpx.Client, gallery: str, external_id: str | None = None) -> dict[str, Any]:
    answer = client.post(f"{gallery}/people", json={"external_id": external_id})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def who(client: httpx.Client, gallery: str, image: bytes) -> list[str]:
    """The ids of the people that a search finds."""
    answer = client.post("/search", files={"image": image}, data={"gallery": gallery.rpartition("/")[2]})
    assert answer.status_code == 200, answer.text
    return [match["person"]["id"] for match in answer.json()["faces"][0]["matches"]]


def pages(client: httpx.Client, path: str, **query: Any) -> Iterator[list[dict[str, Any]]]:  # noqa: ANN401 - query fields
    cursor = None
    while True:
        asked = {**query, **({} if cursor is None else {"cursor": cursor})}
        answer = client.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        yield answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return


ABOUT_SOMEBODY = "SELECT idempotency_digest FROM answers WHERE person_id IS NOT NULL ORDER BY 1"


class TestPeople:
    def test_a_person_is_made_shown_changed_and_deleted(self, client: httpx.Client, gallery: str) -> None:
        made = client.post(f"{gallery}/people", json={"external_id": "emp-17", "metadata": {"team": "red"}})
        assert made.status_code == 201
        path = f"{gallery}/people/{made.json()['id']}"
        assert made.headers["ETag"] == '"1"'
        shown = client.get(path)
        assert shown.json() == {**made.json(), "erase_after": None}
        assert shown.headers["ETag"] == '"1"'

        changed = client.patch(path, json={"metadata": {"team": "blue"}})
        assert changed.json()["metadata"] == {"team": "blue"}
        assert changed.json()["external_id"] == "emp-17"
        assert changed.headers["ETag"] == '"2"'
        assert client.patch(path, json={"external_id": None}).json()["external_id"] is None

        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == 404
        assert client.delete(path).status_code == 404

    def test_an_external_id_belongs_to_one_person_of_a_gallery(self, client: httpx.Client, gallery: str) -> None:
        person(client, gallery, "emp-17")
        other = person(client, gallery, "emp-18")
        taken = client.post(f"{gallery}/people", json={"external_id": "emp-17"})
        assert (taken.status_code, taken.json()["code"]) == (409, "external_id_taken")
        changed = client.patch(f"{gallery}/people/{other['id']}", json={"external_id": "emp-17"})
        assert (changed.status_code, changed.json()["code"]) == (409, "external_id_taken")
        assert person(client, "/galleries/default", f"emp-17-{uuid4()}")["external_id"]

    def test_people_are_found_by_external_id(self, client: httpx.Client, gallery: str) -> None:
        wanted = person(client, gallery, "emp 17/ä#?&%")
        person(client, gallery, "emp-18")
        found = client.get(f"{gallery}/people", params={"external_id": "emp 17/ä#?&%"}).json()
        assert [one["id"] for one in found["items"]] == [wanted["id"]]
        assert client.get(f"{gallery}/people", params={"external_id": "nobody"}).json()["items"] == []

    def test_a_change_to_another_version_than_was_seen_is_refused(self, client: httpx.Client, gallery: str) -> None:
        path = f"{gallery}/people/{person(client, gallery)['id']}"
        seen = client.get(path).headers["ETag"]
        assert client.patch(path, json={"metadata": {"n": "1"}}, headers={"If-Match": seen}).status_code == 200
        late = client.patch(path, json={"metadata": {"n": "2"}}, headers={"If-Match": seen})
        assert (late.status_code, late.json()["code"]) == (412, "version_mismatch")
        assert client.get(path).json()["metadata"] == {"n": "1"}
        assert client.patch(path, json={"metadata": {"n": "3"}}, headers={"If-Match": "*"}).status_code == 200

    @pytest.mark.parametrize("tag", ["x", '"one"', '"1", "2"', "9" * 5000, '"²"'.encode(), ""])
    def test_an_if_match_that_is_no_tag_of_ours_is_refused(
        self, client: httpx.Client, gallery: str, tag: str | bytes
    ) -> None:
        path = f"{gallery}/people/{person(client, gallery)['id']}"
        answer = client.patch(path, json={"metadata": {"n": "1"}}, headers=[(b"If-Match", tag)])  # type: ignore[list-item]  # httpx takes both
        assert answer.status_code in {412, 422}
        assert answer.json()["code"] in {"version_mismatch", "invalid_value"}
        assert client.get(path).json()["metadata"] == {}

    def test_of_two_changes_at_once_with_the_same_tag_one_is_made(self, client: httpx.Client, gallery: str) -> None:
        path = f"{gallery}/people/{person(client, gallery)['id']}"

        def change(number: int) -> int:
            body = {"metadata": {"n": str(number)}}
            return client.patch(path, json=body, headers={"If-Match": '"1"'}).status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = sorted(pool.map(change, range(4)))
        assert statuses == [200, 412, 412, 412]
        assert client.get(path).json()["version"] == 2

    def test_a_merge_moves_the_references_and_can_be_undone(
        self, client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
    ) -> None:
        kept = enrol(client, gallery, astronaut, external_id="kept")["person"]["id"]
        gone = enrol(client, gallery, cast[0], external_id="gone")["person"]["id"]
        merged = client.post(f"{gallery}/people/{kept}/merge", json={"person_id": gone})
        assert merged.status_code == 200
        assert merged.json()["id"] == kept
        assert who(client, gallery, cast[0]) == [kept]
        assert client.get(f"{gallery}/people/{gone}").json()["merged_into"] == kept
        assert [one["id"] for one in client.get(f"{gallery}/people").json()["items"]] == [kept]
        later = enrol(client, gallery, cast[1], person_id=kept)
        assert later["person"]["id"] == kept

        undone = client.post(f"{gallery}/people/{kept}/unmerge", json={"person_id": gone})
        assert undone.status_code == 200
        assert undone.json()["merged_into"] is None
        assert who(client, gallery, cast[0]) == [gone]
        assert who(client, gallery, astronaut) == [kept]
        assert who(client, gallery, cast[1]) == [kept]

    def test_a_merged_person_takes_no_more_faces_and_no_changes(
        self, client: httpx.Client, gallery: str, astronaut: bytes
    ) -> None:
        kept, gone = person(client, gallery, "kept")["id"], person(client, gallery, "gone")["id"]
        client.post(f"{gallery}/people/{kept}/merge", json={"person_id": gone})
        answers = [
            client.post(f"{gallery}/references", files={"image": astronaut}, data={"external_id": "gone"}),
            client.patch(f"{gallery}/people/{gone}", json={"metadata": {}}),
            client.post(f"{gallery}/people/{kept}/merge", json={"person_id": gone}),
            client.post(f"{gallery}/people/{gone}/merge", json={"person_id": kept}),
            client.post(f"{gallery}/people/{gone}/unmerge", json={"person_id": kept}),
        ]
        assert [(one.status_code, one.json()["code"]) for one in answers] == [(409, "person_merged")] * 5
        itself = client.post(f"{gallery}/people/{kept}/merge", json={"person_id": kept})
        assert itself.status_code == 422
        assert client.get(f"{gallery}/references").json()["items"] == []

    def test_a_merged_person_is_deleted_with_the_one_who_has_their_faces(
        self, client: httpx.Client, gallery: str, astronaut: bytes, service: RunningService
    ) -> None:
        before = service.stored()
        kept = person(client, gallery, "kept")["id"]
        gone = enrol(client, gallery, astronaut, external_id="gone")["person"]["id"]
        client.post(f"{gallery}/people/{kept}/merge", json={"person_id": gone})
        alone = client.delete(f"{gallery}/people/{gone}")
        assert (alone.status_code, alone.json()["code"]) == (409, "person_merged")
        assert who(client, gallery, astronaut) == [kept]
        assert client.delete(f"{gallery}/people/{kept}").status_code == 204
        assert client.get(f"{gallery}/people/{gone}").status_code == 404
        assert who(client, gallery, astronaut) == []
        assert service.stored() == before

    def test_deleting_a_person_leaves_nothing_of_them(
        self, client: httpx.Client, gallery: str, astronaut: bytes, service: RunningService
    ) -> None:
        before, about_others = service.stored(), service.rows(ABOUT_SOMEBODY)
        headers = {"Idempotency-Key": str(uuid4())}
        made = client.post(
            f"{gallery}/references", files=[("image", astronaut)] * 3, data={"external_id": "x"}, headers=headers
        ).json()
        assert len(made["accepted"]) == 3
        assert service.stored() != before
        assert client.delete(f"{gallery}/people/{made['person']['id']}").status_code == 204
        # That a call was made under this key is known still, and nothing about whom.
        assert service.stored() == {**before, "answers": before["answers"] + 1}
        assert service.rows(ABOUT_SOMEBODY) == about_others
        assert who(client, gallery, astronaut) == []
        name = gallery.rpartition("/")[2]
        answer = client.post("/verify", files={"image": astronaut}, data={"gallery": name, "external_id": "x"})
        assert (answer.status_code, answer.json()["code"]) == (404, "person_not_found")


class TestReferences:
    def test_an_image_comes_back_byte_by_byte(self, client: httpx.Client, gallery: str, astronaut: bytes) -> None:
        made = enrol(client, gallery, astronaut)["accepted"][0]
        path = f"{gallery}/references/{made['id']}"
        assert client.get(path).json() == made
        image = client.get(f"{path}/image")
        assert image.content == astronaut
        assert image.headers["Content-Type"] == "image/jpeg"
        assert image.headers["Cache-Control"] == "no-store"
        assert image.headers["X-Content-Type-Options"] == "nosniff"

    def test_a_deleted_reference_is_nowhere(
        self, client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
    ) -> None:
        made = enrol(client, gallery, astronaut, external_id="eileen")
        enrol(client, gallery, cast[0], external_id="eileen")
        path = f"{gallery}/references/{made['accepted'][0]['id']}"
        assert client.delete(path).status_code == 204
        assert who(client, gallery, astronaut) == []
        assert [client.get(one).status_code for one in (path, f"{path}/image")] == [404, 404]
        assert client.delete(path).status_code == 404
        assert len(client.get(f"{gallery}/references").json()["items"]) == 1
        assert client.get(f"{gallery}/people/{made['person']['id']}").status_code == 200

    def test_a_person_without_references_cannot_be_verified(
        self, client: httpx.Client, gallery: str, astronaut: bytes
    ) -> None:
        person(client, gallery, "empty")
        answer = client.post(
            "/verify", files={"image": astronaut}, data={"gallery": gallery.rpartition("/")[2], "external_id": "empty"}
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "reference_not_found")

    def test_references_are_listed_by_person(self, client: httpx.Client, gallery: str, astronaut: bytes) -> None:
        one = enrol(client, gallery, astronaut, external_id="one")
        two = enrol(client, gallery, astronaut, external_id="two")
        both = client.get(f"{gallery}/references").json()["items"]
        assert [item["id"] for item in both] == [one["accepted"][0]["id"], two["accepted"][0]["id"]]
        of_two = client.get(f"{gallery}/references", params={"person_id": two["person"]["id"]}).json()["items"]
        assert of_two == two["accepted"]


class TestGalleries:
    def test_a_gallery_is_made_shown_changed_and_deleted(self, client: httpx.Client) -> None:
        name = f"g{uuid4().hex}"
        made = client.post("/galleries", json={"name": name, "policy": {"target_fmr": 1e-2, "keep_images": False}})
        assert made.status_code == 201
        gallery = made.json()
        assert gallery["policy"]["target_fmr"] == 0.01
        assert gallery["policy"]["keep_images"] is False
        assert gallery["policy"]["target_fpir"] == 0.01
        by_id, by_name = (client.get(f"/galleries/{one}").json() for one in (gallery["id"], name))
        assert by_id == by_name
        assert by_id["capacity"] == {
            "references": 0,
            "expected_fnir": by_id["capacity"]["expected_fnir"],
            "outgrown": False,
        }

        changed = client.patch(f"/galleries/{name}", json={"name": f"{name}-b", "policy": {"target_fmr": 1e-3}})
        assert changed.json()["name"] == f"{name}-b"
        assert changed.json()["policy"] == {**gallery["policy"], "target_fmr": 0.001}
        late = client.patch(f"/galleries/{name}-b", json={"policy": {}}, headers={"If-Match": '"1"'})
        assert (late.status_code, late.json()["code"]) == (412, "version_mismatch")

        assert client.delete(f"/galleries/{name}-b").status_code == 204
        assert client.get(f"/galleries/{name}-b").status_code == 404

    def test_a_name_is_taken_once(self, client: httpx.Client, gallery: str) -> None:
        name = gallery.rpartition("/")[2]
        taken = client.post("/galleries", json={"name": name})
        assert (taken.status_code, taken.json()["code"]) == (409, "gallery_name_taken")
        other = f"g{uuid4().hex}"
        client.post("/galleries", json={"name": other})
        renamed = client.patch(f"/galleries/{other}", json={"name": name})
        assert (renamed.status_code, renamed.json()["code"]) == (409, "gallery_name_taken")

    def test_the_default_gallery_stays_and_keeps_its_name(self, client: httpx.Client) -> None:
        for answer in (
            client.delete("/galleries/default"),
            client.patch("/galleries/default", json={"name": "another"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (409, "gallery_kept")
        assert client.get("/galleries/default").status_code == 200

    def test_a_gallery_with_people_in_it_stays(self, client: httpx.Client, gallery: str) -> None:
        path = f"{gallery}/people/{person(client, gallery)['id']}"
        kept = client.delete(gallery)
        assert (kept.status_code, kept.json()["code"]) == (409, "gallery_kept")
        assert client.get(path).status_code == 200
        client.delete(path)
        assert client.delete(gallery).status_code == 204

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "A",
            "a b",
            "../etc",
            "a/b",
            "a\x00",
            "ä",
            "x" * 64,
            ".a",
            "-a",
            "01a1f9ba-6210-711f-a62a-9f40b20f2bb1",
            "a\n",
            "<b>",
            "a;drop table",
        ],
    )
    def test_a_hostile_name_is_refused_and_names_nothing(self, client: httpx.Client, name: str) -> None:
        refused = client.post("/galleries", json={"name": name})
        assert refused.status_code == 422
        assert [one["field"] for one in refused.json()["errors"]] == ["name"]
        searched = client.post("/search", json={"gallery": name, "image": base64.b64encode(b"x").decode()})
        assert (searched.status_code, searched.json()["code"]) == (404, "gallery_not_found")


class TestLists:
    def test_a_list_is_walked_page_by_page(self, client: httpx.Client, gallery: str) -> None:
        made = [person(client, gallery, f"p-{number}")["id"] for number in range(7)]
        walked = list(pages(client, f"{gallery}/people", limit=3))
        assert [len(page) for page in walked] == [3, 3, 1]
        assert [one["id"] for page in walked for one in page] == made

    def test_a_page_that_ends_the_list_has_no_cursor(self, client: httpx.Client, gallery: str) -> None:
        for _ in range(3):
            person(client, gallery)
        assert [len(page) for page in pages(client, f"{gallery}/people", limit=3)] == [3]

    def test_what_is_added_meanwhile_moves_nothing(self, client: httpx.Client, gallery: str) -> None:
        made = [person(client, gallery)["id"] for _ in range(4)]
        walked = pages(client, f"{gallery}/people", limit=2)
        seen = [one["id"] for one in next(walked)]
        client.delete(f"{gallery}/people/{made[0]}")
        added = person(client, gallery)["id"]
        assert [*seen, *(one["id"] for page in walked for one in page)] == [*made, added]

    def test_galleries_and_references_are_walked_too(
        self, client: httpx.Client, gallery: str, astronaut: bytes
    ) -> None:
        names = [one["name"] for page in pages(client, "/galleries", limit=2) for one in page]
        assert len(names) == len(set(names))
        assert {"default", gallery.rpartition("/")[2]} <= set(names)
        client.post(f"{gallery}/references", files=[("image", astronaut)] * 3)
        walked = list(pages(client, f"{gallery}/references", limit=2))
        assert [len(page) for page in walked] == [2, 1]

    @pytest.fixture
    def cursor(self, client: httpx.Client, gallery: str) -> str:
        """Goes on in the list of a gallery's people."""
        for _ in range(2):
            person(client, gallery, str(uuid4()))
        found = client.get(f"{gallery}/people", params={"limit": 1}).json()["next_cursor"]
        assert isinstance(found, str)
        return found

    def test_a_cursor_belongs_to_its_list_and_its_filters(
        self, client: httpx.Client, stranger: httpx.Client, gallery: str, cursor: str
    ) -> None:
        assert client.get(f"{gallery}/people", params={"cursor": cursor}).status_code == 200
        elsewhere = [
            client.get("/galleries", params={"cursor": cursor}),
            client.get("/galleries/default/people", params={"cursor": cursor}),
            client.get(f"{gallery}/references", params={"cursor": cursor}),
            client.get(f"{gallery}/people", params={"cursor": cursor, "external_id": "x"}),
            stranger.get("/galleries", params={"cursor": cursor}),
        ]
        assert [(one.status_code, one.json()["code"]) for one in elsewhere] == [(422, "invalid_cursor")] * 5

    def test_a_cursor_that_was_tampered_with_is_refused(self, client: httpx.Client, gallery: str, cursor: str) -> None:
        flipped = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in (0, 20, 25, 40)]
        for wrong in [*flipped, cursor[:-4], cursor + "AAAA", "", "x", "=", "ä", "\x00", str(uuid4()), "A" * 9000]:
            answer = client.get(f"{gallery}/people", params={"cursor": wrong})
            assert (wrong, answer.status_code, answer.json()["code"]) == (wrong, 422, "invalid_cursor")

    @pytest.mark.parametrize("limit", ["0", "-1", "101", "1e3", "x", "", "99999999999999999999999999", "1.5", "nan"])
    @pytest.mark.parametrize("path", ["/galleries", "/galleries/default/people", "/galleries/default/references"])
    def test_a_limit_is_1_to_100(self, client: httpx.Client, path: str, limit: str) -> None:
        answer = client.get(path, params={"limit": limit})
        assert answer.status_code == 422
        assert [one["field"] for one in answer.json()["errors"]] == ["limit"]


@dataclass(frozen=True, slots=True)
class Answers:
    """Two answers to calls with the same idempotency key."""

    first: httpx.Response
    second: httpx.Response


class TestIdempotency:
    def test_the_same_call_twice_is_made_once(self, client: httpx.Client, gallery: str, astronaut: bytes) -> None:
        headers = {"Idempotency-Key": str(uuid4())}

        def call() -> httpx.Response:
            # The boundary of the form differs from call to call.
            return client.post(f"{gallery}/references", files={"image": astronaut}, headers=headers)

        first, second = call(), call()
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert first.json()["accepted"][0]["searchable"] is True
        assert len(client.get(f"{gallery}/people").json()["items"]) == 1
        assert len(client.get(f"{gallery}/references").json()["items"]) == 1

    @pytest.mark.parametrize("kind", ["enrolment", "named enrolment", "person", "named person", "gallery"])
    def test_the_same_call_many_times_at_once_is_made_once(
        self, client: httpx.Client, gallery: str, astronaut: bytes, kind: str
    ) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        name = f"g{uuid4().hex}"

        def call(_: int) -> httpx.Response:
            match kind:
                case "enrolment":
                    return client.post(f"{gallery}/references", files={"image": astronaut}, headers=headers)
                case "named enrolment":
                    named = {"external_id": "x"}
                    return client.post(f"{gallery}/references", files={"image": astronaut}, data=named, headers=headers)
                case "person":
                    return client.post(f"{gallery}/people", json={}, headers=headers)
                case "named person":
                    return client.post(f"{gallery}/people", json={"external_id": "x"}, headers=headers)
                case _:
                    return client.post("/galleries", json={"name": name}, headers=headers)

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(call, range(6)))
        assert [one.status_code for one in answers] == [201] * 6, [one.text for one in answers]
        if "enrolment" in kind:
            assert len({one.json()["accepted"][0]["id"] for one in answers}) == 1
            assert len(client.get(f"{gallery}/references").json()["items"]) == 1
        else:
            assert len({one.text for one in answers}) == 1
        assert len(client.get(f"{gallery}/people").json()["items"]) == (0 if kind == "gallery" else 1)

    def test_another_body_under_the_same_key_is_a_conflict(
        self, client: httpx.Client, gallery: str, astronaut: bytes, again: bytes
    ) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        sent: list[tuple[str, dict[str, Any]]] = [
            (f"{gallery}/references", {"files": {"image": astronaut}}),
            (f"{gallery}/references", {"files": {"image": again}}),
            (f"{gallery}/references", {"files": {"image": astronaut}, "data": {"external_id": "x"}}),
            ("/galleries/default/references", {"files": {"image": astronaut}}),
            (f"{gallery}/people", {"json": {}}),
            ("/galleries", {"json": {"name": "never"}}),
        ]
        first, *others = (client.post(path, headers=headers, **body) for path, body in sent)
        assert first.status_code == 201
        assert [(one.status_code, one.json()["code"]) for one in others] == [(409, "idempotency_key_reused")] * 5
        assert len(client.get(f"{gallery}/references").json()["items"]) == 1

    @pytest.mark.parametrize("how", ["delete", "erase"])
    def test_whoever_is_gone_since_is_not_brought_back_by_the_same_call(
        self, client: httpx.Client, gallery: str, astronaut: bytes, how: str
    ) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        made = client.post(f"{gallery}/references", files={"image": astronaut}, headers=headers)
        person = f"{gallery}/people/{made.json()['person']['id']}"
        assert (client.delete(person) if how == "delete" else client.post(f"{person}/erase")).is_success
        again = client.post(f"{gallery}/references", files={"image": astronaut}, headers=headers)
        assert (again.status_code, again.json()["code"]) == (404, "person_not_found")
        elsewhere = client.post(f"{gallery}/people", json={}, headers=headers)
        assert (elsewhere.status_code, elsewhere.json()["code"]) == (409, "idempotency_key_reused")
        assert client.get(f"{gallery}/people").json()["items"] == []

    def test_another_caller_cannot_fetch_the_answer(
        self, client: httpx.Client, stranger: httpx.Client, service: RunningService, keys: Keys
    ) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        body = {"external_id": str(uuid4())}
        made = client.post("/galleries/default/people", json=body, headers=headers)
        assert made.status_code == 201
        elsewhere = stranger.post("/galleries/default/people", json=body, headers=headers)
        assert elsewhere.status_code == 201
        assert elsewhere.json()["id"] != made.json()["id"]
        with service.client(keys.spare) as colleague:
            answer = colleague.post("/galleries/default/people", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")

    def test_a_call_that_failed_may_be_repeated_under_its_key(
        self, client: httpx.Client, gallery: str, astronaut: bytes, faceless: bytes
    ) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        assert client.post(f"{gallery}/references", files={"image": faceless}, headers=headers).status_code == 422
        assert client.post(f"{gallery}/references", files={"image": astronaut}, headers=headers).status_code == 201

    @pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\tb", "ä".encode() * 200])
    def test_a_key_is_1_to_255_printable_characters(self, client: httpx.Client, gallery: str, key: bytes) -> None:
        answer = client.post(f"{gallery}/people", json={}, headers=[(b"Idempotency-Key", key)])  # type: ignore[list-item]  # httpx takes bytes
        assert answer.status_code == 422
        assert [one["field"] for one in answer.json()["errors"]] == ["Idempotency-Key"]
        assert client.get(f"{gallery}/people").json()["items"] == []
