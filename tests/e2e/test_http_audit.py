import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.database import Database
from adapters.persistence.tables import AUDIT_ENTRIES
from application.ports.audit import AuditBatch
from application.ports.keyed_hash import KeyedHash
from domain.audit import AUDIT_PURPOSE, INSTANCE
from domain.permission import Role
from entrypoints.settings import DatabaseSettings, JobQueueSettings, Settings
from tests.e2e.in_process import InProcess, in_process
from tests.e2e.signed_in import caller, sign_in
from tests.e2e.wire import is_problem
from tests.e2e.with_jobs import WithJobs

ADA, BEN, EVE = (MemoryFaceEmbedder.picture(name) for name in ("ada", "ben", "eve"))
DEFAULT = "/galleries/default"
Entry = dict[str, Any]
BATCHED = {"face.verified", "face.searched", "face.compared", "face.embedded", "image.read"}


@pytest.fixture
async def service(database_url: str, tmp_path: Path) -> AsyncIterator[InProcess]:
    settings = Settings(
        data_dir=tmp_path / "data",
        database=DatabaseSettings(url=database_url),
        job_queue=JobQueueSettings(upkeep_seconds=1),
    )
    async with in_process(settings, WithJobs(), work=False) as running:
        yield running


async def enrol(service: InProcess, image: bytes, external_id: str, **headers: str) -> Entry:
    answer = await service.client.post(
        DEFAULT + "/references",
        files={"image": ("holiday-of-ada.jpg", image)},
        data={"external_id": external_id, "metadata": '{"surname": "Lovelace"}'},
        headers=headers,
    )
    assert answer.status_code == 201, answer.text
    made: Entry = answer.json()
    return made


async def entries(service: InProcess, **query: str) -> list[Entry]:
    """All of the workspace's that a filter leaves, oldest first."""
    found: list[Entry] = []
    cursor: str | None = None
    while True:
        answer = await service.client.get(
            "/audit", params={"limit": "3", **query} | ({"cursor": cursor} if cursor else {})
        )
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found.extend(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return found[::-1]


async def everything(service: InProcess) -> None:
    """Call every kind of call once."""
    client = service.client
    ada, ben = await enrol(service, ADA, "emp-ada"), await enrol(service, BEN, "emp-ben")
    one, two = ada["person"]["id"], ben["person"]["id"]
    reference = ada["accepted"][0]["id"]
    for answer in [
        await client.post("/verify", files={"image": ADA}, data={"external_id": "emp-ada"}),
        await client.post("/verify", files={"image": EVE}, data={"external_id": "emp-ada"}),
        await client.post("/search", files={"image": BEN}),
        await client.post("/search", files={"image": EVE}),
        await client.post("/faces/compare", files={"image": ADA, "other_image": BEN}),
        await client.post("/faces/embed", files={"image": ADA}),
        await client.get(f"{DEFAULT}/references/{reference}/image"),
        await client.patch(
            f"{DEFAULT}/people/{one}", json={"external_id": "emp-new", "metadata": {"nick": "Countess"}}
        ),
        await client.post(f"{DEFAULT}/people/{one}/merge", json={"person_id": two}),
        await client.post(f"{DEFAULT}/people/{one}/unmerge", json={"person_id": two}),
        await client.delete(f"{DEFAULT}/references/{reference}"),
        await client.delete(f"{DEFAULT}/people/{two}"),
        await client.post(DEFAULT + "/people", json={"external_id": "emp-eve"}),
        await client.post("/galleries", json={"name": "lobby-of-ada"}),
        await client.patch("/galleries/lobby-of-ada", json={"name": "hall-of-ada"}),
        await client.delete("/galleries/hall-of-ada"),
    ]:
        assert answer.is_success, answer.text


async def test_what_was_done_stands_there_once_in_its_order(service: InProcess) -> None:
    await everything(service)
    found = await entries(service)
    assert [one["number"] for one in found] == list(range(1, len(found) + 1))
    done = [one["action"] for one in found if one["actor_kind"] == "key"]
    assert [action for action in done if action not in BATCHED] == [
        *["person.created", "reference.enrolled"] * 2,
        "person.updated",
        "person.merged",
        "person.unmerged",
        "reference.deleted",
        "person.deleted",
        "person.created",
        "gallery.created",
        "gallery.updated",
        "gallery.deleted",
    ]
    assert [action for action in done if action in BATCHED] == [
        *["face.verified"] * 2,
        *["face.searched"] * 2,
        "face.compared",
        "face.embedded",
        "image.read",
    ]
    verified = [one["details"]["decision"] for one in found if one["action"] == "face.verified"]
    assert verified == ["match", "no_match"]
    assert (await service.client.get("/audit/verify")).json()["sound"]


async def test_no_name_no_vector_and_no_secret_stands_there(service: InProcess, database: Database) -> None:
    await everything(service)
    await service.client.get("/audit", headers={"X-API-Key": "fp_a-key-of-somebody"})
    await service.client.get("/audit", headers={"X-API-Key": "", "X-Request-Id": "ada.lovelace"})
    person = {"email": "ada@countess.example", "password": "a-long-and-secret-passphrase", "name": "Lovelace"}
    assert (await service.client.post("/auth/register", json=person)).status_code in {201, 403}
    login = {"email": person["email"], "password": "another-secret-passphrase"}
    is_problem(await service.client.post("/auth/login", json=login), 401, "login_failed")
    named = {"name": "key-of-lovelace", "scopes": ["read"]}
    secret_key = (await service.client.post("/api-keys", json=named)).json()
    assert "key-of-lovelace" in str(secret_key)
    embedded = (await service.client.post("/faces/embed", files={"image": ADA})).json()["faces"][0]["embedding"]
    assert (await service.client.get("/audit/verify")).json()["sound"]  # all is written
    async with database.reads.connect() as connection:
        rows = (await connection.execute(select(AUDIT_ENTRIES))).all()
    assert {row.workspace_id for row in rows} >= {INSTANCE, service.workspace}
    kept = "\n".join(str(value) for row in rows for value in row).lower()
    for secret in [
        "lovelace",
        "surname",
        "emp-",
        "countess",
        "passphrase",
        "holiday",
        "lobby",
        "of-ada",
        "fp_",
        "127.0.0.1",
        service.client.headers["X-API-Key"].lower(),
        *(str(number) for number in embedded if number),
        *(f"{number:.4f}" for number in embedded if abs(number) > 1e-3),
    ]:
        assert secret not in kept, secret
    raw = b"\n".join(value for row in rows for value in row if isinstance(value, bytes))
    assert np.array(embedded, dtype=np.float32).tobytes()[:16] not in raw


async def test_a_call_that_is_repeated_stands_there_once(service: InProcess) -> None:
    await enrol(service, ADA, "ada", **{"Idempotency-Key": "one"})
    await enrol(service, ADA, "ada", **{"Idempotency-Key": "one"})
    assert len(await entries(service, action="reference.enrolled")) == 1
    assert len(await entries(service, action="person.created")) == 1


async def test_refused_calls_stand_where_their_caller_belongs(service: InProcess, database: Database) -> None:
    is_problem(await service.client.get("/galleries", headers={"X-API-Key": ""}), 401, "credential_missing")
    is_problem(await service.client.get("/galleries", headers={"X-API-Key": "fp_no"}), 401, "credential_invalid")
    is_problem(await service.client.get("/admin/audit"), 401, "credential_missing")
    is_problem(await service.client.get("/galleries/nowhere"), 404, "gallery_not_found")
    (ours,) = await entries(service, action="call.refused")
    assert (ours["outcome"], ours["actor_kind"]) == ("credential_missing", "key")
    assert ours["details"] == {"call": "list_instance_audit"}
    await (await service.container.get(AuditBatch)).flush()
    async with database.reads.connect() as connection:
        columns = AUDIT_ENTRIES.c
        found = await connection.execute(
            select(columns.outcome, columns.actor_kind, columns.network, columns.details)
            .where(columns.workspace_id == INSTANCE, columns.action == "call.refused")
            .order_by(columns.number)
        )
        calls = [tuple(row) for row in found]
    assert calls == [
        (code, "nobody", "127.0.0.0/24", {"call": "list_galleries"})
        for code in ("credential_missing", "credential_invalid")
    ]


async def test_what_was_tried_and_came_to_nothing_stands_there_too(service: InProcess) -> None:
    client, nobody = service.client, "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"
    scrap = b"no image at all"
    ada = (await enrol(service, ADA, "emp-ada"))["person"]["id"]
    for path, data in [
        ("/verify", {"person_id": ada}),
        ("/search", {}),
    ]:
        assert (await client.post(path, files={"image": scrap}, data=data)).status_code in {415, 422}
    answer = await client.post("/faces/compare", files={"image": ADA, "other_image": scrap})
    assert answer.status_code in {415, 422}
    answer = await client.post("/verify", files={"image": ADA}, data={"person_id": nobody})
    is_problem(answer, 404, "person_not_found")
    answer = await client.post("/verify", files={"image": ADA}, data={"external_id": "emp-nobody"})
    is_problem(answer, 404, "person_not_found")
    verified = await entries(service, action="face.verified")
    assert [one["subject_id"] for one in verified] == [ada, nobody, None]
    assert [one["outcome"] for one in verified][1:] == ["person_not_found"] * 2
    for action in ("face.searched", "face.compared"):
        (one,) = await entries(service, action=action)
        assert one["outcome"] == verified[0]["outcome"] != "ok"
    assert "emp-nobody" not in str(await entries(service))


async def test_who_looks_for_what_is_not_theirs_stands_there(service: InProcess, database: Database) -> None:
    client = service.client
    elsewhere = {"X-Workspace-Id": "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"}
    is_problem(await client.get("/galleries", headers=elsewhere), 404, "workspace_not_found")
    member = await sign_in(service.container, roles={service.workspace: Role.VIEWER})
    async with caller(service, member.headers) as user:
        is_problem(await user.get("/galleries", headers=elsewhere), 404, "workspace_not_found")
    assert (await client.post("/galleries", json={"name": "other"})).status_code == 201
    body = {"name": "narrow", "scopes": ["read", "search"], "galleries": ["default"]}
    narrow = (await client.post("/api-keys", json=body)).json()
    headers = {"X-API-Key": narrow["api_key"]}
    is_problem(await client.get("/galleries/other", headers=headers), 404, "gallery_not_found")
    items = [{"image": "AAAA", "gallery": "other"}]
    assert (await client.post("/search/batch", json={"items": items}, headers=headers)).status_code == 200
    found = await entries(service, action="call.refused")
    assert [(one["outcome"], one["actor_kind"], one["details"]["call"]) for one in found] == [
        ("workspace_not_found", "key", "list_galleries"),
        ("workspace_not_found", "user", "list_galleries"),
        ("gallery_not_found", "key", "get_gallery"),
        ("gallery_not_found", "key", "search_batch"),
    ]
    assert [one["actor_id"] for one in found][1:] == [str(member.user), narrow["id"], narrow["id"]]
    guessed = {"token": "fpl_" + "A" * 43, "password": "a passphrase of some length"}
    is_problem(await client.post("/auth/password/reset", json=guessed), 422, "link_invalid")
    await (await service.container.get(AuditBatch)).flush()
    async with database.reads.connect() as connection:
        rows = await connection.execute(
            select(AUDIT_ENTRIES.c.outcome).where(
                AUDIT_ENTRIES.c.workspace_id == INSTANCE, AUDIT_ENTRIES.c.action == "call.refused"
            )
        )
        assert [row.outcome for row in rows] == ["link_invalid"]


async def test_the_log_names_no_gallery_of_a_refused_call(service: InProcess) -> None:
    with capture_logs() as logs:
        answer = await service.client.get("/galleries/lobby-of-ada", headers={"X-API-Key": "fp_no"})
    is_problem(answer, 401, "credential_invalid")
    (line,) = [one for one in logs if one["event"] == "refused"]
    assert line["call"] == "get_gallery"
    assert "lobby-of-ada" not in str(line)


async def test_filters_leave_what_was_asked_for(service: InProcess) -> None:
    await everything(service)
    created = await entries(service, action="person.created")
    assert {one["action"] for one in created} == {"person.created"}
    subject = created[0]["subject_id"]
    assert {one["action"] for one in await entries(service, subject=subject)} >= {"person.created", "face.verified"}
    assert not await entries(service, gallery="01a1f9ba-6210-711f-a62a-9f40b20f2bb1")
    at = created[1]["at"]
    assert all(one["at"] >= at for one in await entries(service, since=at))
    assert all(one["at"] < at for one in await entries(service, until=at))
    is_problem(await service.client.get("/audit", params={"action": "no"}), 422, "invalid_value", field="action")
    is_problem(
        await service.client.get("/audit", params={"since": "2026-01-01T00:00:00"}), 422, "invalid_value", field="since"
    )
    page = (await service.client.get("/audit", params={"limit": "1"})).json()
    answer = await service.client.get("/audit", params={"limit": "1", "cursor": page["next_cursor"], "outcome": "ok"})
    is_problem(answer, 422, "invalid_cursor")


async def test_each_line_of_an_export_can_be_checked_by_itself(service: InProcess) -> None:
    await everything(service)
    keyed_hash = await service.container.get(KeyedHash)
    for query in ({}, {"action": "face.verified"}):
        answer = await service.client.get("/audit/export", params=query)
        assert answer.headers["Content-Type"].startswith("application/x-ndjson")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert len(lines) == (2 if query else lines[-1]["number"])
        for line in lines:
            mac = bytes.fromhex(line.pop("mac"))
            text = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
            assert hmac.compare_digest(keyed_hash.digest(AUDIT_PURPOSE, text), mac)
    assert [one["details"] for one in await entries(service, action="audit.exported")] == [
        {"whole": True},
        {"whole": False},
    ]


async def test_a_head_that_was_kept_is_held_to(service: InProcess) -> None:
    await everything(service)
    head = (await service.client.get("/audit/verify")).json()["head"]
    await enrol(service, EVE, "eve")
    assert (await service.client.get("/audit/verify", params={"head": head})).json()["sound"]
    number, _, mac = head.partition(":")
    report = (await service.client.get("/audit/verify", params={"head": f"{int(number) + 50}:{mac}"})).json()
    assert report["findings"][-1]["fault"] == "removed"
    is_problem(await service.client.get("/audit/verify", params={"head": "x"}), 422, "invalid_value", field="head")


async def test_calls_that_get_in_each_others_way_leave_a_chain_without_a_gap(service: InProcess) -> None:
    client = service.client
    people = [
        await enrol(service, MemoryFaceEmbedder.picture(f"person-{number}"), f"p-{number}") for number in range(6)
    ]
    ids = [one["person"]["id"] for one in people]

    async def quarrel(number: int) -> list[int]:
        one, two = ids[number % 6], ids[(number + 1) % 6]
        answers = [
            await client.post(f"{DEFAULT}/people/{one}/merge", json={"person_id": two}),
            await client.post("/verify", files={"image": ADA}, data={"person_id": one}),
            await client.post(
                DEFAULT + "/references",
                files={"image": MemoryFaceEmbedder.picture(f"other-{number}")},
                data={"person_id": two},
            ),
            await client.post(f"{DEFAULT}/people/{one}/unmerge", json={"person_id": two}),
            await client.patch(f"{DEFAULT}/people/{two}", json={"metadata": {"number": str(number)}}),
        ]
        return [answer.status_code for answer in answers]

    seen = [status for statuses in await asyncio.gather(*map(quarrel, range(12))) for status in statuses]
    assert max(seen) < 500, seen
    report = (await client.get("/audit/verify")).json()
    assert report["sound"], report
    assert [one["number"] for one in await entries(service)] == list(range(1, report["entries"] + 1))


async def test_a_key_for_some_galleries_does_not_see_what_was_done_elsewhere(service: InProcess) -> None:
    made = await service.client.post(
        "/api-keys", json={"name": "narrow", "scopes": ["manage"], "galleries": ["default"]}
    )
    assert made.status_code == 201, made.text
    (secret,) = [value for value in made.json().values() if str(value).startswith("fp_") and len(value) > 20]
    for path in ("/audit", "/audit/export", "/audit/verify"):
        is_problem(await service.client.get(path, headers={"X-API-Key": secret}), 403, "scope_missing")
