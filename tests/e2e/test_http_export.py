import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence import audit_log
from domain.permission import Permission
from entrypoints.http.access import PERMISSION_OPTION
from entrypoints.http.routes import people
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.with_jobs import WithJobs

ADA, BEN = (MemoryFaceEmbedder.picture(name) for name in ("ada", "ben"))


@pytest.fixture
async def node(database_url: str, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with in_process(settings_for(database_url, tmp_path, tmp_path / "models"), WithJobs(), work=False) as one:
        yield one


async def enrol(node: InProcess, picture: bytes, name: str) -> tuple[str, str]:
    sent = await node.client.post(
        "/galleries/default/references",
        files={"image": (f"{name}.bin", picture)},
        data={"external_id": name, "metadata": '{"team": "red"}', "retention_days": "30"},
    )
    return str(sent.json()["person"]["id"]), str(sent.json()["accepted"][0]["id"])


async def test_everything_about_a_person_is_in_it_and_nothing_about_others(node: InProcess) -> None:
    ada, reference = await enrol(node, ADA, "ada")
    ben, other = await enrol(node, BEN, "ben")
    merged, brought = await enrol(node, ADA, "lovelace")
    await node.client.post(f"/galleries/default/people/{ada}/merge", json={"person_id": merged})
    answer = await node.client.get(f"/galleries/default/people/{ada}/export")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["cache-control"] == "no-store"
    assert f"person-{ada}.zip" in answer.headers["content-disposition"]
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    told = json.loads(archive.read("person.json"))
    assert (told["id"], told["external_id"], told["metadata"]) == (ada, "ada", {"team": "red"})
    assert told["retention_days"] == 30
    assert told["erase_after"] is not None
    assert [one["external_id"] for one in told["merged"]] == ["lovelace"]
    assert [one["id"] for one in told["references"]] == [reference, brought]
    assert {one["filename"] for one in told["references"]} == {"ada.bin", "lovelace.bin"}
    assert [archive.read(one["image"]) for one in told["references"]] == [ADA, ADA]
    entries = [json.loads(line) for line in archive.read("audit.jsonl").splitlines()]
    assert {"person.exported", "person.merged"} <= {one["action"] for one in entries}
    assert "template" in archive.read("README.txt").decode()
    everything = b"".join(archive.read(name) for name in archive.namelist())
    for stranger in (ben.encode(), other.encode(), BEN):
        assert stranger not in everything


@pytest.mark.parametrize("stretch", [1, 3, audit_log.STRETCH])
async def test_what_was_done_with_them_and_others_together_is_in_it_without_the_others(
    node: InProcess, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    monkeypatch.setattr(audit_log, "STRETCH", stretch)
    ada, _ = await enrol(node, ADA, "ada")
    ben, bens = await enrol(node, BEN, "ben")
    both = MemoryFaceEmbedder.group(["ada", "ben"])
    found = await node.client.post("/search", data={"faces": "all"}, files={"image": both})
    assert found.status_code == 200, found.text
    gone, removed = await enrol(node, ADA, "ada")
    assert gone == ada
    await node.client.delete(f"/galleries/default/references/{removed}")
    await node.client.post(f"/galleries/default/people/{ada}/merge", json={"person_id": ben})
    assert (await node.client.get(f"/galleries/default/references/{bens}/image")).status_code == 200
    await node.client.post(f"/galleries/default/people/{ada}/unmerge", json={"person_id": ben})
    answer = await node.client.get(f"/galleries/default/people/{ada}/export")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    entries = [json.loads(line) for line in archive.read("audit.jsonl").splitlines()]
    by_action = {one["action"]: one for one in entries}
    assert len(entries) == len({json.dumps(one) for one in entries})
    assert [one["action"] for one in entries].count("reference.enrolled") == 2
    assert by_action["face.searched"]["details"]["people"].count(ada) == 1
    assert by_action["face.searched"]["details"]["people"].count("another person") == 1
    assert by_action["reference.deleted"]["subject_id"] == removed
    assert (by_action["person.merged"]["subject_id"], by_action["person.merged"]["details"]["into"]) == (None, ada)
    assert by_action["person.unmerged"]["details"]["from"] == ada
    assert by_action["image.read"]["subject_id"] is None
    everything = b"".join(archive.read(name) for name in archive.namelist())
    for anothers in (ben, bens):
        assert anothers.encode() not in everything


async def test_nobody_is_exported_who_is_not_there_or_was_merged(node: InProcess) -> None:
    ada, reference = await enrol(node, ADA, "ada")
    ben, _ = await enrol(node, BEN, "ben")
    await node.client.post(f"/galleries/default/people/{ada}/merge", json={"person_id": ben})
    for person, status, code in ((reference, 404, "person_not_found"), (ben, 409, "person_merged")):
        answer = await node.client.get(f"/galleries/default/people/{person}/export")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert Permission(people.export_person.opt[PERMISSION_OPTION]) is Permission.EXPORT
