from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Keys
from tests.e2e.running_service import RunningService

Kept = dict[str, Any]
MIDDLE = slice(20_000, 20_048)
"""Bytes of a JPEG that occur in no other file: deep inside its entropy-coded data."""


def record_tables(service: RunningService) -> list[str]:
    """Every table but the vector index's own.

    The index must hold vectors as they are, or it could not compare them: what protects them is that the record
    can rebuild it anywhere, and the operator's disk encryption.
    """
    rows = service.rows(
        "SELECT table_name AS name FROM information_schema.tables AS t"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND NOT EXISTS ("
        "  SELECT FROM information_schema.columns AS c WHERE c.table_schema = 'public'"
        "  AND c.table_name = t.table_name AND c.udt_name IN ('vector', 'halfvec', 'bit'))"
    )
    return [row["name"] for row in rows]


def dump(service: RunningService) -> dict[str, bytes]:
    """The contents of every table of the record, columns of bytes as they are."""
    found = {}
    for table in record_tables(service):
        rows = service.rows(f'SELECT * FROM "{table}"')  # noqa: S608 - names that the database itself gave
        cells = [cell for row in rows for cell in row.values()]
        found[table] = b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)
    return found


@pytest.fixture(scope="module")
def kept(client: httpx.Client, astronaut: bytes) -> Kept:
    """Somebody who was enrolled with everything there is, and their embedding."""
    name = f"g{uuid4().hex}"
    client.post("/galleries", json={"name": name})
    enrolled = client.post(
        f"/galleries/{name}/references",
        files={"image": ("portrait.jpg", astronaut)},
        data={"external_id": f"emp-{name}", "metadata": '{"team": "red"}'},
        headers={"Idempotency-Key": f"key-{name}"},
    ).json()
    (face,) = client.post("/faces/embed", files={"image": astronaut}).json()["faces"]
    assert client.post("/search", files={"image": astronaut}, data={"gallery": name}).json()["faces"][0]["matches"]
    vector = np.array(face["embedding"])
    return {"name": name, "enrolled": enrolled, "vector": vector}


def test_no_template_is_in_the_record(service: RunningService, kept: Kept) -> None:
    tables = dump(service)
    assert {"people", "references", "data_keys", "answers", "api_keys"} <= set(tables)
    # The search would find what is there.
    assert kept["enrolled"]["person"]["external_id"].encode() in tables["people"]
    for kind in ("<f4", "<f2", "<f8", ">f4"):
        raw = kept["vector"].astype(kind).tobytes()
        for start in range(0, len(raw) - 16, 16):
            piece = raw[start : start + 16]
            assert [table for table, content in tables.items() if piece in content] == []


def test_an_answer_that_is_kept_for_repeats_is_sealed(service: RunningService, kept: Kept) -> None:
    answers = dump(service)["answers"]
    assert f"key-{kept['name']}".encode() in answers
    for told in (kept["enrolled"]["person"]["external_id"], kept["enrolled"]["accepted"][0]["id"], "portrait.jpg"):
        assert told.encode() not in answers


def test_no_image_and_no_key_is_in_any_file(service: RunningService, keys: Keys, kept: Kept, astronaut: bytes) -> None:
    secrets = {"image": astronaut[MIDDLE], "api key": keys.mine.encode(), "other's key": keys.other.encode()}
    there = kept["enrolled"]["person"]["external_id"].encode()
    seen = False
    files = [path for path in service.data.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        content = path.read_bytes()
        seen = seen or there in content
        assert [name for name, secret in secrets.items() if secret in content] == [], path
    assert seen, "the search would not find what is there"
    assert len(service.files()) >= 1


def test_logs_hold_nobody(service: RunningService, client: httpx.Client, kept: Kept) -> None:
    external_id = kept["enrolled"]["person"]["external_id"]
    client.get(f"/galleries/{kept['name']}/people", params={"external_id": external_id})
    client.post("/verify", json={"image": "AA==", "external_id": external_id})
    logged = service.logs.read_bytes()
    assert b'"request"' in logged
    for told in (external_id, "portrait.jpg", '"team"'):
        assert told.encode() not in logged
