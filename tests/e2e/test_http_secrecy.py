import json
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


def contents(rows: list[dict[str, Any]]) -> bytes:
    """All cells, columns of bytes as they are."""
    cells = [cell for row in rows for cell in row.values()]
    return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


def dump(service: RunningService) -> dict[str, bytes]:
    """The contents of every table, those of the vector index too."""
    tables = service.rows(
        "SELECT table_name AS name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    return {
        table["name"]: contents(service.rows(f'SELECT * FROM "{table["name"]}"'))  # noqa: S608 - the database's names
        for table in tables
    }


def raw_pieces(vector: np.ndarray, kind: str, length: int) -> set[bytes]:
    """Its numbers in binary, cut into pieces of so many bytes."""
    raw = vector.astype(kind).tobytes()
    return {raw[start : start + length] for start in range(0, len(raw) - length + 1, length)}


def written_pieces(service: RunningService, vector: np.ndarray, kind: str) -> set[bytes]:
    """Its numbers as pgvector writes them, four by four."""
    [row] = service.rows(f"SELECT $1::text::{kind}::text AS written", str(vector.tolist()))
    numbers = row["written"].strip("[]").split(",")
    return {",".join(numbers[start : start + 4]).encode() for start in range(0, len(numbers), 4)}


def in_it(content: bytes, wanted: dict[str, set[bytes]]) -> set[str]:
    """What of it is there, or a piece of it."""
    return {name for name, pieces in wanted.items() if any(piece in content for piece in pieces)}


def kept_vector(service: RunningService, kept: Kept) -> np.ndarray:
    """What the vector index holds of the face."""
    tables = service.rows("SELECT table_name AS name FROM information_schema.columns WHERE udt_name = 'vector'")
    found = [
        row["vector"]
        for table in tables
        for row in service.rows(
            f"SELECT embedding::text AS vector FROM {table['name']} WHERE reference_id = $1::text::uuid",  # noqa: S608 - the database's names
            kept["enrolled"]["accepted"][0]["id"],
        )
    ]
    assert len(found) == 1
    return np.array(json.loads(found[0]), dtype=np.float32)


@pytest.fixture(scope="module")
def kept(client: httpx.Client, astronaut: bytes) -> Kept:
    """Somebody who was enrolled with everything there is, and their embedding."""
    name = f"g{uuid4().hex}"
    names = {
        "external_id": f"emp-{name}",
        "metadata": f"red-{name}",
        "file name": f"portrait-{name}.jpg",
        "idempotency key": f"key-{name}",
    }
    client.post("/galleries", json={"name": name})
    enrolled = client.post(
        f"/galleries/{name}/references",
        files={"image": (names["file name"], astronaut)},
        data={"external_id": names["external_id"], "metadata": json.dumps({"team": names["metadata"]})},
        headers={"Idempotency-Key": names["idempotency key"]},
    ).json()
    (face,) = client.post("/faces/embed", files={"image": astronaut}).json()["faces"]
    assert client.post("/search", files={"image": astronaut}, data={"gallery": name}).json()["faces"][0]["matches"]
    vector = np.array(face["embedding"])
    return {"name": name, "names": names, "enrolled": enrolled, "vector": vector}


def test_no_template_is_in_any_table(service: RunningService, kept: Kept) -> None:
    tables = dump(service)
    assert {"people", "references", "data_keys", "answers", "api_keys"} <= set(tables)
    reference = kept["enrolled"]["accepted"][0]["id"].encode()
    assert reference in tables["references"]
    assert any(reference in content for table, content in tables.items() if table.startswith("vectors_"))
    pieces = set().union(
        *(raw_pieces(kept["vector"], kind, 16) for kind in ("<f4", "<f2", "<f8", ">f4")),
        *(written_pieces(service, kept["vector"], kind) for kind in ("vector", "halfvec")),
    )
    assert [table for table, content in tables.items() if in_it(content, {"template": pieces})] == []


def test_the_search_for_templates_finds_what_the_index_holds(service: RunningService, kept: Kept) -> None:
    turned = kept_vector(service, kept)
    held = b"\n".join(content for table, content in dump(service).items() if table.startswith("vectors_"))
    assert all(piece in held for piece in written_pieces(service, turned, "vector"))


def test_what_the_index_holds_is_not_like_the_vector(service: RunningService, kept: Kept) -> None:
    turned = kept_vector(service, kept)
    assert np.linalg.norm(turned) == pytest.approx(1.0, abs=1e-3)
    # Six standard deviations of vectors that know nothing of each other.
    assert abs(turned @ kept["vector"]) < 6 / np.sqrt(len(turned))


def test_an_answer_that_is_kept_for_repeats_is_sealed(service: RunningService, kept: Kept) -> None:
    answers = dump(service)["answers"]
    assert kept["enrolled"]["person"]["id"].encode() in answers
    assert kept["enrolled"]["accepted"][0]["id"].encode() not in answers


def test_nothing_that_names_a_person_is_in_any_table(service: RunningService, kept: Kept) -> None:
    named = {name: {word.encode()} for name, word in kept["names"].items()}
    assert {table: in_it(content, named) for table, content in dump(service).items() if in_it(content, named)} == {}


def test_people_are_still_found_by_what_names_them(client: httpx.Client, kept: Kept) -> None:
    found = client.get(
        f"/galleries/{kept['name']}/people", params={"external_id": kept["names"]["external_id"]}
    ).json()["items"]
    assert [one["metadata"] for one in found] == [{"team": kept["names"]["metadata"]}]
    references = client.get(f"/galleries/{kept['name']}/references").json()["items"]
    assert [one["filename"] for one in references] == [kept["names"]["file name"]]


def test_no_image_no_template_and_no_key_is_in_any_file(
    service: RunningService, keys: Keys, kept: Kept, astronaut: bytes
) -> None:
    # Vectors in several pieces, for a page of PostgreSQL may end within one.
    secrets = {
        "image": {astronaut[MIDDLE]},
        "template": raw_pieces(kept["vector"], "<f4", 64),
        "api key": {keys.mine.encode()},
        "other's key": {keys.other.encode()},
        **{name: {word.encode()} for name, word in kept["names"].items()},
    }
    there = {
        "a gallery's name": {kept["name"].encode()},
        "what the index holds": raw_pieces(kept_vector(service, kept), "<f4", 64),
    }
    seen: set[str] = set()
    files = [path for path in service.data.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        content = path.read_bytes()
        seen |= in_it(content, there)
        assert in_it(content, secrets) == set(), path
    assert seen == set(there), "the search would not find what is there"
    assert len(service.files()) >= 1


def test_logs_hold_nobody(service: RunningService, client: httpx.Client, kept: Kept) -> None:
    external_id = kept["enrolled"]["person"]["external_id"]
    client.get(f"/galleries/{kept['name']}/people", params={"external_id": external_id})
    client.post("/verify", json={"image": "AA==", "external_id": external_id})
    logged = service.logs.read_bytes()
    assert b'"request"' in logged
    for told in (*kept["names"].values(), '"team"'):
        assert told.encode() not in logged
