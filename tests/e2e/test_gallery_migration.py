"""A gallery moves from the open pack to one of InsightFace's making: real models, real photographs, over HTTP."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ENVIRONMENT
from tests.e2e.running_service import RunningService

FILES = ("scrfd_2.5g_bnkps.onnx", "mobilefacenet_128d.onnx")
PATIENCE = 120.0
CALIBRATED_ON = 100
"""People; with three photographs each some 45,000 pairs of strangers, which carry a false match rate of 1e-3."""
ENROLLED = 5
"""People, with two photographs each: among ten references a search needs a rate of 1e-3 still, which is carried."""


@pytest.fixture(scope="module")
def people(lfw: Path) -> list[list[Path]]:
    """Three photographs each of people with so many, a folder a person."""
    found = [sorted(person.glob("*.jpg"))[:3] for person in sorted(lfw.iterdir()) if person.is_dir()]
    return [photographs for photographs in found if len(photographs) == 3][: CALIBRATED_ON + ENROLLED]


@pytest.fixture(scope="module")
def root(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where InsightFace finds a pack named `tiny`."""
    made = tmp_path_factory.mktemp("insightface")
    made.chmod(0o711)
    (made / "models" / "tiny").mkdir(parents=True)
    for name in FILES:
        if not (shared / "models" / name).is_file():
            pytest.skip(f"{name}, half of an InsightFace pack, is not in {shared / 'models'}")
        (made / "models" / "tiny" / name).symlink_to(shared / "models" / name)
    return made


@pytest.fixture(scope="module")
def service(
    open_pack_dir: Path, root: Path, people: list[list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """The service with both models, the second one calibrated on photographs of others."""
    chosen = {"BACKEND": "insightface", "PACK": "tiny", "ROOT": str(root)}
    second = {f"FACEPASS_NEXT_FACE_EMBEDDER__{name}": value for name, value in chosen.items()}
    with RunningService(open_pack_dir, ENVIRONMENT, **second) as running:
        folder = tmp_path_factory.mktemp("calibration")
        for photographs in people[ENROLLED:]:
            place = folder / photographs[0].parent.name
            place.mkdir()
            for photograph in photographs:
                (place / photograph.name).symlink_to(photograph)
        alone = {f"FACEPASS_FACE_EMBEDDER__{name}": value for name, value in chosen.items()}
        measured = running.result("calibrate", str(folder), "--write", **alone, **dict.fromkeys(second, ""))
        assert measured.returncode == 0, measured.stderr
        running.start()
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[httpx.Client]:
    with service.client(service.new_key()) as opened:
        yield opened


def ended(client: httpx.Client, asked: httpx.Response) -> dict[str, Any]:
    assert asked.status_code == 202, asked.text
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(asked.headers["Location"].removeprefix("/api/v1")).json()
        if job["status"] in {"succeeded", "failed", "cancelled"}:
            return job
        time.sleep(0.1)
    pytest.fail("the job has not ended")


def asked_who(client: httpx.Client, photograph: Path) -> dict[str, Any]:
    answer = client.post("/search", files={"image": photograph.read_bytes()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_gallery_moves_to_a_real_model_and_back(
    service: RunningService, client: httpx.Client, people: list[list[Path]]
) -> None:
    residents = {photographs[0].parent.name: photographs for photographs in people[:ENROLLED]}
    references = 0
    enrolled = {}
    for name, photographs in residents.items():
        files = [("image", (one.name, one.read_bytes())) for one in photographs[:2]]
        answer = client.post("/galleries/default/references", data={"external_id": name}, files=files)
        assert answer.status_code == 201, answer.text
        accepted = [one["filename"] for one in answer.json()["accepted"]]
        references += len(accepted)
        enrolled[name] = next(one for one in photographs if one.name in accepted)

    prepared = ended(client, client.post("/galleries/default/migrate", json={"to": "tiny"}))
    assert prepared["status"] == "succeeded", prepared
    state = client.get("/galleries/default/migration").json()
    assert (state["phase"], state["followed"], state["left_behind"]) == ("prepared", references, {})
    report = state["report"]
    assert report["probes"] == references
    assert report["search"]["right_after"] >= report["search"]["compared"] // 2
    assert report["impostor"]["right_after"] >= report["impostor"]["compared"] - 1
    assert asked_who(client, residents[next(iter(residents))][2])["model"] == "open@1"

    switched = ended(client, client.post("/galleries/default/migrate", json={"to": "tiny", "switch": True}))
    assert switched["result"]["switched"]
    right = 0
    for name, photographs in residents.items():
        found = asked_who(client, photographs[2])
        assert found["model"] == "tiny@insightface"
        named = [one["person"]["external_id"] for one in found["faces"][0]["matches"]]
        assert set(named) <= {name}
        right += named == [name]
        image = {"image": enrolled[name].read_bytes()}
        # So few photographs carry no rate of 1e-3 that is shared between two references.
        claim = {"external_id": name, "target_fmr": "0.01"}
        verified = client.post("/verify", data=claim, files=image).json()
        assert verified["verified"]
        assert verified["similarity"] > 0.999
    assert right >= ENROLLED // 2

    back = json.loads(service.command("gallery", "migrate", "default", "--to", "open", "--switch", "--json"))
    assert (back["status"], back["result"]["followed"]) == ("succeeded", references)
    assert asked_who(client, residents[next(iter(residents))][2])["model"] == "open@1"
    shown = service.command("gallery", "migration", "default")
    assert "switched" in shown

    service.rows("UPDATE gallery_moves SET switched_at = switched_at - interval '1 hour' RETURNING gallery_id")
    finished = json.loads(service.command("gallery", "finish", "default", "--json"))
    assert (finished["status"], finished["result"]) == ("succeeded", {"settled": references})
    assert json.loads(service.command("index", "verify", "--json"))[0]["agrees"]
    assert client.get("/galleries/default/migration").status_code == 404
