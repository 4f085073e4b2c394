import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from dishka import Scope, provide
from sqlalchemy import text

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.connection import SqlConnection
from application.use_cases.jobs.run_job import RunJob
from application.use_cases.jobs.sweep_jobs import SweepJobs
from domain.calibration import Calibration
from domain.job import JobId, JobStatus
from tests.e2e.in_process import LoadedEmbedder, Served, served, settings_for
from tests.e2e.wire import encoded
from tests.e2e.with_jobs import CURVE

ADA, BEN = (MemoryFaceEmbedder.picture(name) for name in ("ada", "ben"))
NAME, LABEL, FILE = "augusta-ada-lovelace", "countess of lovelace", "lovelace-portrait.bin"
DECISION = Path(__file__).parents[2] / "docs" / "decisions" / "0024-erasing-for-good.md"
KEPT_FOR_GOOD = {"audit_entries", "erasures"}
"""Where ids may stand after somebody was erased."""
WITHOUT_PEOPLE = {
    "alembic_version",
    "api_keys",
    "audit_heads",
    "gallery_rotations",
    "index_state",
    "installation",
    "key_ring",
    "ledger_mark",
    "login_failures",
    "memberships",
    "one_time_links",
    "refresh_tokens",
    "sessions",
    "signing_keys",
    "users",
    "workspaces",
    "galleries",
    "erasures",
    "reconciliations",
}
"""Tables that name nobody of a gallery, or nobody before an erasure; each other one does, and is looked at after it."""


class OnlyFaces(LoadedEmbedder):
    """Made-up faces, and every other backend as it is: pgvector and files."""

    @provide(override=True)
    def its_calibration(self) -> Calibration:
        return CURVE


@pytest.fixture
async def node(database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    settings = settings_for(database_url, tmp_path, tmp_path / "models")
    async with served(settings, OnlyFaces(MemoryFaceEmbedder()), work=False) as one:
        yield one


async def in_jobs_and_reports(node: Served, person: str, reference: str) -> None:
    """Let a job enrol them once more, and a gallery's move and its job compare decisions about them."""
    items = [{"external_id": NAME, "image": encoded(ADA)}, {"external_id": "ben", "image": encoded(BEN)}]
    sent = await node.client.post(
        "/galleries/default/references/batch", json={"items": items}, headers={"Prefer": "respond-async"}
    )
    job = JobId(UUID(sent.json()["id"]))
    ran = await (await node.container.get(RunJob))(workspace=node.workspace, job=job)
    assert ran is not None
    assert ran.status is JobStatus.SUCCEEDED
    asked = {"outcome": "match", "person_id": person, "similarity": 0.75}
    different = [
        {"reference_id": reference, "question": "search", "before": {**asked, "person_id": None}, "after": asked},
        {"reference_id": str(uuid4()), "question": "search", "before": asked, "after": {**asked, "person_id": None}},
    ]
    report = json.dumps({"probes": 2, "different": different})
    async with node.container(scope=Scope.REQUEST) as unit:
        connection = await unit.get(SqlConnection)
        await connection.execute(
            text(
                "INSERT INTO gallery_moves (workspace_id, gallery_id, source, target, job_id, report, asked_at)"
                " SELECT workspace_id, id, space, space, :job, CAST(:report AS jsonb), now() FROM galleries"
            ),
            {"job": job, "report": report},
        )
        await connection.execute(
            text(
                "INSERT INTO spare_templates SELECT workspace_id, id, space, gallery_id, NULL, 'face_not_found'"
                ' FROM "references"'
            )
        )
        await connection.execute(
            text("UPDATE jobs SET result = result || jsonb_build_object('agreement', CAST(:report AS jsonb))"),
            {"report": report},
        )
        await connection.commit()
        await (await unit.get(SweepJobs))()


async def tables(node: Served) -> dict[str, bytes]:
    """The contents of every table, those of the vector index too: bytes as they are, everything else as text."""
    async with node.container(scope=Scope.REQUEST) as unit:
        connection = await unit.get(SqlConnection)
        names = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        found = {}
        for name in names.scalars().all():
            rows = await connection.execute(text(f'SELECT * FROM "{name}"'))  # noqa: S608 - the database's names
            cells = [cell for row in rows for cell in row]
            found[name] = b"\n".join(bytes(one) if isinstance(one, bytes) else str(one).encode() for one in cells)
        return found


def files(tmp_path: Path) -> bytes:
    """The contents of the blob store and their names."""
    blobs = [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in blobs)


async def rows(node: Served, query: str, **values: object) -> list[Any]:
    async with node.container(scope=Scope.REQUEST) as unit:
        return list(await (await unit.get(SqlConnection)).execute(text(query), values))


def pieces(vector: np.ndarray) -> set[bytes]:
    """Its numbers in binary, four by four, in each form that they could be kept in."""
    found = set()
    for kind in ("<f4", "<f2", ">f4", "<f8"):
        raw, step = vector.astype(kind).tobytes(), 4 * np.dtype(kind).itemsize
        found |= {raw[start : start + step] for start in range(0, len(raw) - step + 1, step)}
    return found


async def test_a_dump_holds_nothing_of_a_person_before_and_no_trace_after_they_were_erased(
    node: Served, tmp_path: Path
) -> None:
    sent = await node.client.post(
        "/galleries/default/references",
        files={"image": (FILE, ADA)},
        data={"external_id": NAME, "metadata": json.dumps({"title": LABEL})},
        headers={"Idempotency-Key": "call-about-her"},
    )
    assert sent.status_code == 201, sent.text
    await node.client.post("/galleries/default/references", files={"image": ("ben.bin", BEN)})
    person, reference = sent.json()["person"]["id"], sent.json()["accepted"][0]["id"]
    (face,) = (await node.client.post("/faces/embed", files={"image": (FILE, ADA)})).json()["faces"]
    secrets = {ADA, NAME.encode(), LABEL.encode(), FILE.encode(), *pieces(np.array(face["embedding"]))}
    ids = {one.encode() for one in (person, reference)}
    await in_jobs_and_reports(node, person, reference)
    (sealed,) = await rows(
        node,
        'SELECT k.wrapped, r.template FROM "references" r JOIN data_keys k ON k.id = r.data_key_id WHERE r.id = :id',
        id=UUID(reference),
    )
    (index,) = [name for name in await tables(node) if name.startswith("vectors_")]
    (entry,) = await rows(
        node,
        f"SELECT embedding::text AS vector FROM {index} WHERE reference_id = :id",  # noqa: S608 - the database's name
        id=UUID(reference),
    )

    before = await tables(node)
    kept = {name for name, content in before.items() for secret in secrets if secret in content}
    assert kept == set()
    assert not any(secret in files(tmp_path) for secret in secrets)
    # What is looked for after the erasure is there before it: the search would find it.
    assert sealed.wrapped in before["data_keys"]
    assert sealed.template in before["references"]
    assert entry.vector.encode() in before[index]
    assert person.encode() in before["people"]
    assert reference.encode() in files(tmp_path)
    assert before.keys() - {name for name, content in before.items() for one in ids if one in content} <= WITHOUT_PEOPLE

    # What the database goes on holding in its files until it has vacuumed these tables.
    (vacuum,) = re.findall(r"`VACUUM ([^`]*)`", DECISION.read_text())
    named = {name.strip(' "*') for name in vacuum.split(",")}
    assert {"vectors_" if name == index else name for name in before.keys() - WITHOUT_PEOPLE - KEPT_FOR_GOOD} <= named

    erased = await node.client.post(f"/galleries/default/people/{person}/erase")
    assert erased.json()["still_being_removed"] == {"references": 0, "ledger": False, "jobs": 0}
    after = await tables(node)
    (told,) = await rows(node, "SELECT result FROM jobs")
    first, second = told.result["items"]
    assert (first["index"], first["problem"]["code"]) == (0, "person_not_found")
    assert len(second["accepted"]) == 1
    assert told.result["agreement"] == {"probes": 2, "different": []}
    traces = secrets | {sealed.wrapped, sealed.template, entry.vector.encode()}
    assert {name for name, content in after.items() for trace in traces if trace in content} == set()
    assert {name for name, content in after.items() for one in ids if one in content} <= KEPT_FOR_GOOD
    remaining = files(tmp_path)
    assert not any(trace in remaining for trace in traces | ids)
    assert b"ledger" in remaining
    assert any("turned and not sealed" in one for one in erased.json()["remains"])
    for secret in secrets:
        assert secret not in erased.content
