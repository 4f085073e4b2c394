import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import ENVIRONMENT
from tests.e2e.running_service import RunningService

ROUNDS = 4
CLIENTS = 3
REFERENCES = "/galleries/default/references"


@dataclass(slots=True)
class Call:
    """An enrolment as its client remembers it."""

    external_id: str
    image: bytes
    key: str = field(default_factory=lambda: str(uuid4()))
    answer: dict[str, Any] | None = None
    """None where the client heard nothing, or that it failed."""

    def make(self, client: httpx.Client) -> None:
        answer = client.post(
            REFERENCES,
            files={"image": self.image},
            data={"external_id": self.external_id},
            headers={"Idempotency-Key": self.key},
        )
        if answer.status_code == 201:
            self.answer = answer.json()


@pytest.fixture
def mortal(open_pack_dir: Path) -> Iterator[RunningService]:
    """A service of this test's own, to be killed."""
    with RunningService(open_pack_dir, ENVIRONMENT) as running:
        yield running


def walked(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get(path, params={"limit": 100, **({"cursor": cursor} if cursor else {})}).json()
        items.extend(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def enrol_until_killed(service: RunningService, key: str, images: list[bytes], chance: random.Random) -> list[Call]:
    """Enrol from several clients at once; kill the server at some moment after the first answers."""
    calls: list[Call] = []
    dead = threading.Event()
    answered = threading.Semaphore(0)

    def enrol(number: int) -> None:
        with service.client(key) as client:
            while not dead.is_set():
                call = Call(f"{uuid4()}", images[(number + len(calls)) % len(images)])
                calls.append(call)
                try:
                    call.make(client)
                except httpx.TransportError:
                    return
                answered.release()

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(enrol, number) for number in range(CLIENTS)]
        for _ in range(chance.randint(1, 5)):
            assert answered.acquire(timeout=60.0)
        # Not a wait for anything: the moment is what varies.
        time.sleep(chance.random() * 0.3)
        service.kill()
        dead.set()
        for one in running:
            one.result()
    return calls


def test_killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_is_made_twice(
    mortal: RunningService, astronaut: bytes, cast: list[bytes]
) -> None:
    images = [astronaut, *cast]
    key = mortal.new_key()
    chance = random.Random(17)  # noqa: S311 - moments, not secrets
    calls: list[Call] = []
    for _ in range(ROUNDS):
        mortal.start()
        calls.extend(enrol_until_killed(mortal, key, images, chance))
    mortal.start()

    acknowledged = [call for call in calls if call.answer is not None]
    assert len(acknowledged) >= ROUNDS
    with mortal.client(key) as client:
        listed = {one["id"]: one for one in walked(client, REFERENCES)}
        people = {one["external_id"]: one["id"] for one in walked(client, "/galleries/default/people")}
        for call in acknowledged:
            assert call.answer is not None
            (made,) = call.answer["accepted"]
            assert listed[made["id"]]["person_id"] == people[call.external_id]
            image = client.get(f"{REFERENCES}/{made['id']}/image")
            assert image.content == call.image
        for image in images:
            found = client.post("/search", files={"image": image}, data={"limit": "100"}).json()
            ids = {match["person"]["external_id"] for match in found["faces"][0]["matches"]}
            assert {call.external_id for call in acknowledged if call.image == image} <= ids

        # Whoever made a person made a reference of them: nothing is there by half.
        assert {one["person_id"] for one in listed.values()} == set(people.values())
        assert len(listed) == len(people)

        first = {call.external_id: call.answer for call in calls}
        for call in calls:
            call.make(client)
            assert call.answer is not None
            before = first[call.external_id]
            if before is not None:
                assert [one["id"] for one in before["accepted"]] == [one["id"] for one in call.answer["accepted"]]
            assert call.answer["accepted"][0]["searchable"] is True
        assert len(walked(client, REFERENCES)) == len(walked(client, "/galleries/default/people")) == len(calls)

    (checked,) = json.loads(mortal.command("index", "verify", "--json"))
    assert (checked["references"], checked["missing"], checked["superfluous"], checked["different"]) == (
        len(calls),
        [],
        [],
        [],
    )
