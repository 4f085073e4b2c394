from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from dishka import Scope
from sqlalchemy import text

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.connection import SqlConnection
from application.ports.retentions import Retentions
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.retention import Retention
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.with_jobs import WithJobs

ADA, BEN = (MemoryFaceEmbedder.picture(name) for name in ("ada", "ben"))
PAST, FUTURE = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


@pytest.fixture
async def node(database_url: str, tmp_path: Path) -> AsyncIterator[InProcess]:
    """A service that does nothing in the background: nobody is erased by it."""
    async with in_process(settings_for(database_url, tmp_path, tmp_path / "models"), WithJobs(), work=False) as one:
        yield one


async def enrol(node: InProcess, picture: bytes, **fields: str) -> dict[str, Any]:
    sent = await node.client.post("/galleries/default/references", files={"image": ("face.bin", picture)}, data=fields)
    assert sent.status_code == 201, sent.text
    person: dict[str, Any] = sent.json()["person"]
    return person


async def shown(node: InProcess, person: dict[str, Any]) -> dict[str, Any]:
    answer = await node.client.get(f"/galleries/default/people/{person['id']}")
    found: dict[str, Any] = answer.json()
    return found


async def found(node: InProcess, picture: bytes) -> list[str]:
    answer = await node.client.post("/search", files={"image": ("face.bin", picture)})
    return [match["person"]["id"] for match in answer.json()["faces"][0]["matches"]]


async def verified(node: InProcess, picture: bytes, **claimed: str) -> tuple[int, str | None]:
    answer = await node.client.post("/verify", files={"image": ("face.bin", picture)}, data=claimed)
    return answer.status_code, answer.json().get("code")


async def test_both_ends_are_set_shown_changed_and_taken_away(node: InProcess) -> None:
    person = await enrol(node, ADA, external_id="ada", retention_days="30", consent_expires_at=FUTURE)
    assert (person["retention_days"], person["consent_expires_at"]) == (30, FUTURE)
    enrolled = datetime.fromisoformat((await shown(node, person))["created_at"])
    due = datetime.fromisoformat((await shown(node, person))["erase_after"])
    assert timedelta(days=30) <= due - enrolled < timedelta(days=30, minutes=1)
    address = f"/galleries/default/people/{person['id']}"
    assert (await node.client.patch(address, json={"metadata": {"a": "b"}})).json()["retention_days"] == 30
    changed = await node.client.patch(address, json={"retention_days": None, "consent_expires_at": None})
    assert (changed.json()["retention_days"], changed.json()["consent_expires_at"]) == (None, None)
    assert "erase_after" not in changed.json()  # it depends on the gallery too, and is told to who asks for one person
    assert (await shown(node, person))["erase_after"] is None
    noted = (await node.client.get("/audit", params={"action": "person.updated"})).json()["items"]
    assert [one["details"]["changed"] for one in noted] == [["retention_days", "consent_expires_at"], ["metadata"]]


async def test_a_merge_gives_no_consent_back_that_was_withdrawn(node: InProcess) -> None:
    gone = await enrol(node, ADA, external_id="ada", consent_expires_at=PAST)
    kept = await enrol(node, BEN, external_id="ben")
    merged = await node.client.post(f"/galleries/default/people/{kept['id']}/merge", json={"person_id": gone["id"]})
    assert merged.json()["consent_expires_at"] == PAST
    assert (await found(node, ADA), await found(node, BEN)) == ([], [])


async def test_somebody_made_without_a_face_is_due_from_then_on(node: InProcess) -> None:
    made = await node.client.post("/galleries/default/people", json={"retention_days": 1})
    person = await shown(node, made.json())
    assert datetime.fromisoformat(person["erase_after"]) - datetime.fromisoformat(person["created_at"]) == timedelta(
        days=1
    )


@pytest.mark.parametrize(
    "body",
    [{"retention_days": 0}, {"retention_days": 40_000}, {"consent_expires_at": "2030-01-01T00:00:00"}],
)
async def test_what_is_no_end_is_refused(node: InProcess, body: dict[str, Any]) -> None:
    for answer in (
        await node.client.post("/galleries/default/people", json=body),
        await node.client.patch("/galleries/default", json={"policy": body}),
    ):
        assert answer.status_code == 422
        assert next(iter(body)) in answer.json()["errors"][0]["field"]


async def test_whose_consent_has_expired_is_neither_verified_nor_found(node: InProcess) -> None:
    ada, ben = await enrol(node, ADA, external_id="ada"), await enrol(node, BEN, external_id="ben")
    assert (await found(node, ADA), await found(node, BEN)) == ([ada["id"]], [ben["id"]])
    await node.client.patch(f"/galleries/default/people/{ada['id']}", json={"consent_expires_at": PAST})
    assert (await found(node, ADA), await found(node, BEN)) == ([], [ben["id"]])
    assert await verified(node, ADA, external_id="ada") == (404, "person_not_found")
    assert await verified(node, ADA, person_id=ada["id"]) == (404, "person_not_found")
    (reference,) = (await node.client.get("/galleries/default/references", params={"person": ada["id"]})).json()[
        "items"
    ][:1]
    assert await verified(node, ADA, reference_id=reference["id"]) == (404, "reference_not_found")
    assert await verified(node, BEN, external_id="ben") == (200, None)
    await node.client.patch(f"/galleries/default/people/{ada['id']}", json={"consent_expires_at": FUTURE})
    assert await verified(node, ADA, external_id="ada") == (200, None)


async def test_a_gallery_s_consent_is_everybody_s_who_has_none_of_their_own(node: InProcess) -> None:
    await enrol(node, ADA, external_id="ada")
    await enrol(node, BEN, external_id="ben", consent_expires_at=FUTURE)
    policy = (await node.client.patch("/galleries/default", json={"policy": {"consent_expires_at": PAST}})).json()
    assert policy["policy"]["consent_expires_at"] == PAST
    assert await verified(node, ADA, external_id="ada") == (404, "person_not_found")
    assert await verified(node, BEN, external_id="ben") == (200, None)
    assert (await node.client.get("/galleries/default")).json()["policy"]["consent_expires_at"] == PAST


async def test_the_database_computes_what_the_domain_says(node: InProcess) -> None:
    # A while ago: nobody is due by a clock that is ahead of the database's.
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)
    choices = [
        Retention(days=days, consent_expires_at=consent)
        for days, consent in product((None, 1), (None, now - timedelta(hours=1), now + timedelta(days=2)))
    ]
    made = await enrol(node, ADA, external_id="ada")
    gallery, person = GalleryId(UUID(made["gallery_id"])), PersonId(UUID(made["id"]))
    async with node.container(scope=Scope.REQUEST) as unit:
        connection = await unit.get(SqlConnection)
        await connection.execute(text("UPDATE \"references\" SET created_at = created_at - interval '10 days'"))
        await connection.commit()
    references = (await node.client.get("/galleries/default/references")).json()["items"]
    since = datetime.fromisoformat(references[0]["created_at"])
    for own, its in product(choices, choices):
        await node.client.patch(
            f"/galleries/default/people/{person}",
            json={"retention_days": own.days, "consent_expires_at": _written(own)},
        )
        await node.client.patch(
            "/galleries/default",
            json={"policy": {"retention_days": its.days, "consent_expires_at": _written(its)}},
        )
        expected = own.before(its).erase_after(since)
        async with node.container(scope=Scope.REQUEST) as unit:
            retentions = await unit.get(Retentions)
            assert await retentions.erase_after(node.workspace, gallery, person) == expected
            for moment in (now, now + timedelta(days=3), now + timedelta(days=500)):
                due = await retentions.due(moment, limit=10)
                is_due = expected is not None and expected <= moment
                assert due == ([(node.workspace, gallery, person)] if is_due else [])
                assert await retentions.is_due(node.workspace, gallery, person, moment) == is_due


async def test_another_enrolment_begins_the_retention_anew(node: InProcess) -> None:
    person = await enrol(node, ADA, external_id="ada", retention_days="10")
    async with node.container(scope=Scope.REQUEST) as unit:
        connection = await unit.get(SqlConnection)
        await connection.execute(text("UPDATE \"references\" SET created_at = created_at - interval '9 days'"))
        await connection.commit()
    before = datetime.fromisoformat((await shown(node, person))["erase_after"])
    await enrol(node, ADA, external_id="ada")
    after = datetime.fromisoformat((await shown(node, person))["erase_after"])
    assert after - before == pytest.approx(timedelta(days=9), abs=timedelta(minutes=1))


def _written(retention: Retention) -> str | None:
    moment = retention.consent_expires_at
    return None if moment is None else moment.isoformat()
