import json
import shutil
from pathlib import Path

import httpx

from tests.conftest import ENVIRONMENT
from tests.e2e.running_service import RunningService

PEOPLE = "/galleries/default/people"


def enrol(client: httpx.Client, picture: bytes, name: str) -> str:
    sent = client.post(
        "/galleries/default/references", files={"image": ("face.jpg", picture)}, data={"external_id": name}
    )
    assert sent.status_code == 201, sent.text
    return str(sent.json()["person"]["id"])


def found(client: httpx.Client, picture: bytes) -> list[str]:
    faces = client.post("/search", files={"image": picture}).json()["faces"]
    return [match["person"]["external_id"] for match in faces[0]["matches"]]


def test_an_old_backup_brings_back_nobody_who_was_erased(
    open_pack_dir: Path, astronaut: bytes, again: bytes, cast: list[bytes], tmp_path: Path
) -> None:
    backup, key_copy, receipt = tmp_path / "backup", tmp_path / "key", tmp_path / "receipt.json"
    ledger = tmp_path / "ledger.jsonl"
    with RunningService(open_pack_dir, ENVIRONMENT) as running:
        key = running.new_key()
        running.start()
        with running.client(key) as client:
            ada, ben = enrol(client, astronaut, "ada"), enrol(client, cast[0], "ben")
            assert (found(client, again), found(client, cast[0])) == (["ada"], ["ben"])
            made = running.command("backup", str(backup), "--key-to", str(key_copy))
            assert "2 people, 2 references" in made
            refused = running.result("backup", str(tmp_path / "second"), "--key-to", str(tmp_path / "second" / "key"))
            assert (refused.returncode, "lies inside the backup" in refused.stderr) == (1, True)
            answer = client.post(f"{PEOPLE}/{ada}/erase")
            assert answer.status_code == 200
            receipt.write_bytes(answer.content)
        proved = json.loads(running.command("erase", "verify", str(receipt), "--json"))
        assert proved["gone"]
        assert json.loads(running.command("erase", "receipt", ada)) == json.loads(receipt.read_bytes())
        assert "1 erasures" in running.command("erase", "ledger", "--export", str(ledger))
        in_use = running.result("restore", str(backup), "--replace", "--yes")
        assert (in_use.returncode, "end services" in in_use.stderr) == (1, True)
        running.stop()
        running._postgres.stop()
        assert running._postgres.wait_ended(60.0)
        shutil.rmtree(running.data / "postgres")

        told = running.command("restore", str(backup), "--ledger", str(ledger))
        assert "2 people" in told
        assert "1 were erased since" in told

        running.start()
        with running.client(key) as client:
            assert client.get(f"{PEOPLE}/{ada}").status_code == 404
            claim = client.post("/verify", files={"image": again}, data={"external_id": "ada"})
            assert (claim.status_code, claim.json()["code"]) == (404, "person_not_found")
            assert (found(client, again), found(client, cast[0])) == ([], ["ben"])
            assert client.get(f"{PEOPLE}/{ben}").status_code == 200
        assert {name: running.stored()[name] for name in ("people", "references", "data_keys")} == {
            "people": 1,
            "references": 1,
            "data_keys": 1,
        }
        again_proved = json.loads(running.command("erase", "verify", str(receipt), "--json"))
        assert again_proved["gone"]
        changed = json.loads(receipt.read_text())
        changed["erased_at"] = "2001-01-01T00:00:00+00:00"
        receipt.write_text(json.dumps(changed))
        false = running.result("erase", "verify", str(receipt))
        assert (false.returncode, "receipt_invalid" in false.stderr) == (1, True)
    master = key_copy.read_bytes()
    for path in (path for path in backup.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert astronaut[20_000:20_048] not in content
        assert master.splitlines()[-1] not in content
