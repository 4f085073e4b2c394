import base64
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
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


def search(client: httpx.Client, gallery: str, image: bytes, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - form fields
    name = gallery.rpartition("/")[2]
    answer = client.post("/search", files={"image": image}, data={"gallery": name, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def named(found: dict[str, Any]) -> list[str]:
    """The external ids of all matches of the first face."""
    return [match["person"]["external_id"] for match in found["faces"][0]["matches"]]


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def photographs(lfw_mini: Path, person: str, count: int) -> list[bytes]:
    return [path.read_bytes() for path in sorted((lfw_mini / person).iterdir())[:count]]


def test_an_enrolled_face_is_verified_and_found(
    client: httpx.Client, gallery: str, astronaut: bytes, again: bytes
) -> None:
    made = enrol(client, gallery, astronaut, external_id="eileen")
    reference = made["accepted"][0]
    assert made["person"]["external_id"] == "eileen"
    assert reference["searchable"] is True
    assert made["rejected"] == []

    name = gallery.rpartition("/")[2]
    verified = client.post(
        "/verify", files={"image": again}, data={"gallery": name, "person_id": made["person"]["id"]}
    ).json()
    assert verified["verified"] is True
    assert verified["decision"] == {"outcome": "match", "reasons": []}
    assert verified["similarity"] >= verified["threshold"]
    assert verified["threshold_source"] == "pack"
    assert verified["threshold_target"] == {"kind": "fmr", "value": 0.001}
    assert verified["person"] == {"id": made["person"]["id"], "external_id": "eileen"}
    assert verified["reference_id"] == reference["id"]

    found = search(client, gallery, again)
    (match,) = found["faces"][0]["matches"]
    assert match["person"]["id"] == made["person"]["id"]
    assert match["reference_id"] == reference["id"]
    assert match["outcome"] == "match"
    assert match["margin"] is None
    assert found["references"] == 1
    assert found["threshold_target"] == {"kind": "fpir", "value": 0.01}


def test_a_person_can_be_claimed_in_four_ways(
    client: httpx.Client, gallery: str, astronaut: bytes, again: bytes
) -> None:
    made = enrol(client, gallery, astronaut, external_id="eileen")
    name = gallery.rpartition("/")[2]
    claims = [
        {"external_id": "eileen"},
        {"person_id": made["person"]["id"]},
        {"reference_id": made["accepted"][0]["id"]},
        {"other_image": base64_of(astronaut)},
    ]
    answers = [client.post("/verify", json={"gallery": name, "image": base64_of(again), **claim}) for claim in claims]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json()["verified"] for answer in answers] == [True] * 4
    assert len({round(answer.json()["similarity"], 4) for answer in answers}) == 1


def test_another_person_is_not_verified(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    name = gallery.rpartition("/")[2]
    answer = client.post("/verify", files={"image": cast[0]}, data={"gallery": name, "external_id": "eileen"}).json()
    assert answer["verified"] is False
    assert answer["decision"]["outcome"] == "no_match"


def test_a_batch_of_verifications_has_an_answer_for_each(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    name = gallery.rpartition("/")[2]
    items = [
        {"gallery": name, "image": base64_of(astronaut), "external_id": "eileen"},
        {"gallery": name, "image": base64_of(cast[1]), "external_id": "eileen"},
        {"gallery": name, "image": base64_of(astronaut), "external_id": "nobody"},
        {"gallery": name, "image": base64_of(b"no image"), "external_id": "eileen"},
        {"gallery": name, "image": base64_of(astronaut)},
    ]
    answer = client.post("/verify/batch", json={"items": items})
    assert answer.status_code == 200, answer.text
    results = answer.json()["items"]
    assert [one["index"] for one in results] == [0, 1, 2, 3, 4]
    assert [one["verified"]["verified"] for one in results[:2]] == [True, False]
    assert [one["problem"]["code"] for one in results[2:]] == ["person_not_found", "not_an_image", "invalid_value"]


def test_a_batch_of_searches_has_an_answer_for_each(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    name = gallery.rpartition("/")[2]
    items = [
        {"gallery": name, "image": base64_of(astronaut)},
        {"gallery": name, "image": base64_of(cast[0])},
        {"gallery": name, "image": base64_of(astronaut), "limit": 0},
        {"gallery": "missing", "image": base64_of(astronaut)},
    ]
    results = client.post("/search/batch", json={"items": items}).json()["items"]
    assert named(results[0]["searched"]) == ["eileen"]
    assert results[1]["searched"]["faces"][0]["matches"] == []
    assert [one["problem"]["code"] for one in results[2:]] == ["invalid_value", "gallery_not_found"]


def test_several_images_are_accepted_one_by_one(
    client: httpx.Client, gallery: str, astronaut: bytes, group: bytes, faceless: bytes
) -> None:
    sent = [("a.jpg", astronaut), ("b.jpg", group), ("c.jpg", astronaut), ("d.jpg", faceless), ("e.jpg", b"no image")]
    answer = client.post(
        f"{gallery}/references", files=[("image", one) for one in sent], data={"external_id": "eileen"}
    )
    assert answer.status_code == 201
    made = answer.json()
    assert [one["filename"] for one in made["accepted"]] == ["a.jpg", "c.jpg"]
    assert [(one["index"], one["filename"], one["code"]) for one in made["rejected"]] == [
        (1, "b.jpg", "multiple_faces"),
        (3, "d.jpg", "face_not_found"),
        (4, "e.jpg", "not_an_image"),
    ]
    assert all(one["detail"] for one in made["rejected"])


def test_json_and_multipart_enrol_the_same(client: httpx.Client, gallery: str, astronaut: bytes) -> None:
    formed = enrol(client, gallery, astronaut, external_id="one", metadata='{"team": "red"}')
    answer = client.post(
        f"{gallery}/references",
        json={"images": [base64_of(astronaut)], "external_id": "two", "metadata": {"team": "red"}},
    )
    assert answer.status_code == 201
    sent = answer.json()
    assert sent["person"]["metadata"] == formed["person"]["metadata"] == {"team": "red"}
    assert sent["accepted"][0]["box"] == formed["accepted"][0]["box"]


def test_an_external_id_that_is_known_gets_another_reference(
    client: httpx.Client, gallery: str, astronaut: bytes, again: bytes
) -> None:
    first = enrol(client, gallery, astronaut, external_id="eileen")
    second = enrol(client, gallery, again, external_id="eileen")
    third = enrol(client, gallery, again, person_id=first["person"]["id"])
    assert {one["person"]["id"] for one in (first, second, third)} == {first["person"]["id"]}
    assert len(client.get(f"{gallery}/references").json()["items"]) == 3


def test_a_batch_of_enrolments_has_an_answer_for_each(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes], group: bytes
) -> None:
    items = [
        {"image": base64_of(astronaut), "external_id": "eileen"},
        {"images": [base64_of(cast[0]), base64_of(group)], "external_id": "first"},
        {"image": base64_of(group), "external_id": "crowd"},
        {"image": base64_of(astronaut), "external_id": "x" * 256},
    ]
    answer = client.post(f"{gallery}/references/batch", json={"items": items})
    assert answer.status_code == 200, answer.text
    results = answer.json()["items"]
    assert [len(one["enrolled"]["accepted"]) for one in results[:2]] == [1, 1]
    assert [one["code"] for one in results[1]["enrolled"]["rejected"]] == ["multiple_faces"]
    assert [one["problem"]["code"] for one in results[2:]] == ["multiple_faces", "invalid_value"]
    people = client.get(f"{gallery}/people").json()["items"]
    assert {one["external_id"] for one in people} == {"eileen", "first"}


def test_a_batch_sent_again_with_its_key_enrols_nobody_twice(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    items = [
        {"image": base64_of(astronaut), "external_id": "eileen"},
        {"image": base64_of(cast[0]), "external_id": "first"},
    ]
    headers = {"Idempotency-Key": "a batch"}
    first, again = (
        client.post(f"{gallery}/references/batch", json={"items": items}, headers=headers).json() for _ in range(2)
    )
    assert first == again
    assert len(client.get(f"{gallery}/references").json()["items"]) == 2


def test_a_group_is_searched_face_by_face(
    client: httpx.Client, gallery: str, astronaut: bytes, group: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    for number in (0, 3):
        enrol(client, gallery, cast[number], external_id=f"cast-{number}")
    found = search(client, gallery, group, faces="all")
    assert len(found["faces"]) == 6
    matches = sorted(match["person"]["external_id"] for face in found["faces"] for match in face["matches"])
    assert matches == ["cast-0", "cast-3"]
    assert sum(face["decision"]["outcome"] == "no_match" for face in found["faces"]) == 4


def test_a_search_for_all_faces_of_an_image_without_any_is_empty(
    client: httpx.Client, gallery: str, faceless: bytes
) -> None:
    assert search(client, gallery, faceless, faces="all")["faces"] == []


def test_a_stranger_is_an_empty_list(client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    found = search(client, gallery, cast[0])
    assert found["faces"][0]["matches"] == []
    assert found["faces"][0]["decision"] == {"outcome": "no_match", "reasons": []}


def test_a_search_in_an_empty_gallery_is_an_empty_list(client: httpx.Client, gallery: str, astronaut: bytes) -> None:
    found = search(client, gallery, astronaut)
    assert found["faces"][0]["matches"] == []
    assert found["references"] == 0


def test_limit_and_margin_count_people(
    client: httpx.Client, gallery: str, astronaut: bytes, again: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    enrol(client, gallery, again, external_id="eileen")
    for number in (0, 1, 2):
        enrol(client, gallery, cast[number], external_id=f"cast-{number}")
    everyone = search(client, gallery, astronaut, threshold=-1)["faces"][0]["matches"]
    assert everyone[0]["person"]["external_id"] == "eileen"
    assert len(everyone) == len({one["person"]["id"] for one in everyone}) == 4
    similarities = [one["similarity"] for one in everyone]
    assert similarities == sorted(similarities, reverse=True)
    assert [one["margin"] for one in everyone] == pytest.approx(
        [*(best - after for best, after in pairwise(similarities)), None], abs=2e-6
    )
    two = search(client, gallery, astronaut, threshold=-1, limit=2)["faces"][0]["matches"]
    assert two == everyone[:2]


def test_a_threshold_of_the_request_counts_and_is_said(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    low = search(client, gallery, cast[0], threshold=-1)
    assert named(low) == ["eileen"]
    assert (low["threshold"], low["threshold_source"], low["threshold_target"]) == (-1.0, "request", None)
    high = search(client, gallery, cast[0], threshold=1)
    assert named(high) == []


def test_a_target_of_the_request_moves_the_threshold(client: httpx.Client, gallery: str, astronaut: bytes) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    name = gallery.rpartition("/")[2]
    usual = search(client, gallery, astronaut)
    loose = search(client, gallery, astronaut, target_fpir=0.3)
    assert loose["threshold_source"] == "request"
    assert loose["threshold_target"] == {"kind": "fpir", "value": 0.3}
    # Never below that of a verification.
    assert loose["threshold"] <= usual["threshold"]
    strict, lax = (
        client.post(
            "/verify", files={"image": astronaut}, data={"gallery": name, "external_id": "eileen", "target_fmr": rate}
        ).json()
        for rate in ("0.0005", "0.05")
    )
    assert strict["threshold"] > lax["threshold"]
    assert strict["threshold_target"] == {"kind": "fmr", "value": 0.0005}


def test_nothing_matches_beyond_what_the_calibration_carries(
    client: httpx.Client, gallery: str, astronaut: bytes
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    found = search(client, gallery, astronaut, target_fpir="1e-12")
    assert found["threshold"] is None
    assert found["faces"][0]["decision"] == {"outcome": "uncertain", "reasons": ["beyond_calibration"]}
    assert [match["outcome"] for match in found["faces"][0]["matches"]] == ["uncertain"]


def test_more_references_raise_the_threshold_of_a_search(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    one = search(client, gallery, astronaut, target_fpir="0.0011")
    images = [("image", image) for image in cast * 3]
    assert client.post(f"{gallery}/references", files=images, data={"external_id": "cast"}).status_code == 201
    # The number of references may be a second old.
    many = one
    for _ in range(100):
        many = search(client, gallery, astronaut, target_fpir="0.0011")
        if many["references"] > 1:
            break
    assert many["references"] > 10
    assert many["threshold"] is None or many["threshold"] > one["threshold"]


def test_between_the_thresholds_is_uncertain(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    name = gallery.rpartition("/")[2]
    similarity = search(client, gallery, cast[0], threshold=-1)["faces"][0]["matches"][0]["similarity"]
    # A gallery whose verification threshold lies below this pair, and whose search threshold above it.
    changed = client.patch(gallery, json={"policy": {"verification_threshold": similarity - 0.01}})
    assert changed.status_code == 200
    found = search(client, gallery, cast[0])
    (match,) = found["faces"][0]["matches"]
    assert match["outcome"] == "uncertain"
    assert found["faces"][0]["decision"] == {"outcome": "uncertain", "reasons": ["below_search_threshold"]}
    verified = client.post("/verify", files={"image": cast[0]}, data={"gallery": name, "external_id": "eileen"}).json()
    assert (verified["verified"], verified["threshold_source"]) == (True, "gallery")

    assert client.patch(gallery, json={"policy": {"hide_uncertain": True}}).status_code == 200
    hidden = search(client, gallery, cast[0])
    assert hidden["faces"][0]["matches"] == []
    assert hidden["faces"][0]["decision"]["outcome"] == "uncertain"


def test_a_fixed_threshold_of_the_gallery_counts_for_its_searches(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    assert client.patch(gallery, json={"policy": {"search_threshold": -1}}).status_code == 200
    found = search(client, gallery, cast[0])
    assert named(found) == ["eileen"]
    assert (found["threshold"], found["threshold_source"]) == (-1.0, "gallery")


def test_a_search_can_be_limited_to_people(
    client: httpx.Client, gallery: str, astronaut: bytes, cast: list[bytes]
) -> None:
    eileen = enrol(client, gallery, astronaut, external_id="eileen")["person"]["id"]
    other = enrol(client, gallery, cast[0], external_id="other")["person"]["id"]
    assert named(search(client, gallery, astronaut, threshold=-1, people=f"{other}")) == ["other"]
    assert named(search(client, gallery, astronaut, threshold=-1, people=f"{other},{eileen}")) == ["eileen", "other"]
    name = gallery.rpartition("/")[2]
    answer = client.post(
        "/search", json={"gallery": name, "image": base64_of(astronaut), "people": [other], "threshold": -1}
    )
    assert named(answer.json()) == ["other"]


def test_of_several_frames_the_best_is_used(
    client: httpx.Client, gallery: str, astronaut: bytes, faceless: bytes
) -> None:
    enrol(client, gallery, astronaut, external_id="eileen")
    name = gallery.rpartition("/")[2]
    frames = [("image", faceless), ("image", astronaut)]
    assert named(client.post("/search", files=frames, data={"gallery": name}).json()) == ["eileen"]


def test_images_are_not_kept_where_the_policy_says_so(client: httpx.Client, gallery: str, astronaut: bytes) -> None:
    assert client.patch(gallery, json={"policy": {"keep_images": False}}).status_code == 200
    reference = enrol(client, gallery, astronaut)["accepted"][0]
    assert reference["has_image"] is False
    answer = client.get(f"{gallery}/references/{reference['id']}/image")
    assert (answer.status_code, answer.json()["code"]) == (404, "image_not_kept")
    assert len(named(search(client, gallery, astronaut))) == 1


def test_a_policy_says_which_faces_are_refused(client: httpx.Client, gallery: str, astronaut: bytes) -> None:
    policy = client.patch(gallery, json={"policy": {"refused_reasons": []}}).json()["policy"]
    assert policy["refused_reasons"] == []
    assert len(enrol(client, gallery, astronaut)["accepted"]) == 1


def test_detect_lists_every_face_largest_first(client: httpx.Client, group: bytes, faceless: bytes) -> None:
    found = client.post("/faces/detect", files={"image": group}).json()
    areas = [face["box"]["width"] * face["box"]["height"] for face in found["faces"]]
    assert len(areas) == 6
    assert areas == sorted(areas, reverse=True)
    assert found["image"] == {"width": 1280, "height": 886}
    for face in found["faces"]:
        box = face["box"]
        assert box["normalised"]["left"] == pytest.approx(box["left"] / 1280, abs=1e-4)
        assert set(face["landmarks"]) == {"left_eye", "right_eye", "nose", "left_mouth", "right_mouth"}
    assert client.post("/faces/detect", files={"image": faceless}).json()["faces"] == []


def test_compare_tells_the_same_person_from_another(
    client: httpx.Client, astronaut: bytes, again: bytes, cast: list[bytes], faceless: bytes
) -> None:
    same = client.post("/faces/compare", files={"image": astronaut, "other_image": again}).json()
    other = client.post("/faces/compare", files={"image": astronaut, "other_image": cast[0]}).json()
    assert (same["verified"], other["verified"]) == (True, False)
    assert same["similarity"] > same["threshold"] > other["similarity"]
    none = client.post("/faces/compare", files={"image": astronaut, "other_image": faceless})
    assert (none.status_code, none.json()["code"]) == (422, "face_not_found")


def test_embed_needs_a_scope_of_its_own(
    client: httpx.Client, service: RunningService, keys: Keys, group: bytes
) -> None:
    embedded = client.post("/faces/embed", files={"image": group}).json()
    assert len(embedded["faces"]) == 6
    for face in embedded["faces"]:
        assert sum(number * number for number in face["embedding"]) == pytest.approx(1.0, abs=1e-4)
        assert face["model"] == "open@1"
    # What `bootstrap` gives unless told otherwise.
    usual = ["enrol", "verify", "search", "liveness", "read", "manage"]
    service.rows("UPDATE api_keys SET scopes = $1 WHERE prefix = $2", usual, keys.spare[:11])
    with service.client(keys.spare) as without:
        answer = without.post("/faces/embed", files={"image": group})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_real_people_are_told_apart(client: httpx.Client, gallery: str, lfw_mini: Path) -> None:
    people = sorted(path.name for path in lfw_mini.iterdir())
    probes: list[tuple[str, bytes]] = []
    for person in people:
        first, *others = photographs(lfw_mini, person, 5)
        enrol(client, gallery, first, external_id=person)
        probes.extend((person, image) for image in others)
    answers = [(person, search(client, gallery, image)["faces"][0]["matches"]) for person, image in probes]
    sure = [
        (person, match["person"]["external_id"])
        for person, matches in answers
        for match in matches
        if match["outcome"] == "match"
    ]
    assert all(person == found for person, found in sure)
    assert len(sure) >= len(probes) // 2


@pytest.mark.parametrize("faces", ["largest", "all"])
def test_what_was_written_is_seen_at_once(client: httpx.Client, gallery: str, astronaut: bytes, faces: str) -> None:
    for turn in range(10):
        made = enrol(client, gallery, astronaut, external_id=f"turn-{turn}")
        assert named(search(client, gallery, astronaut, faces=faces)) == [f"turn-{turn}"]
        gone: Sequence[str] = [f"/references/{made['accepted'][0]['id']}", f"/people/{made['person']['id']}"]
        assert client.delete(gallery + gone[turn % 2]).status_code == 204
        assert named(search(client, gallery, astronaut, faces=faces)) == []


def test_a_search_among_too_many_people_is_refused(client: httpx.Client, gallery: str, astronaut: bytes) -> None:
    name = gallery.rpartition("/")[2]
    people = [str(uuid4()) for _ in range(1001)]
    answer = client.post("/search", json={"image": base64_of(astronaut), "gallery": name, "people": people})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_items")
