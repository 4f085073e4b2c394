import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from entrypoints.cli.main import main
from tests.conftest import execute

Facepass = Callable[..., Result]
THERE, GONE, WITHOUT = UUID(int=0xA), UUID(int=0xB), UUID(int=0xC)


@pytest.fixture
def facepass(database_url: str, tmp_path: Path) -> Facepass:
    """The command, on a database with nothing in it."""
    environment = {
        "FACEPASS_DATA_DIR": str(tmp_path / "data"),
        "FACEPASS_DATABASE__URL": database_url,
        "FACEPASS_LOG_LEVEL": "error",
    }

    def command(*arguments: str, status: int = 0) -> Result:
        done = CliRunner().invoke(main, ["audit", *arguments], env=environment)
        assert done.exit_code == status, done.output
        return done

    return command


def test_the_log_is_exported_listed_and_verified(facepass: Facepass, tmp_path: Path) -> None:
    assert "0 entries" in facepass("verify", "--instance").stdout
    facepass("export", "--instance", "--output", str(tmp_path / "audit.jsonl"))
    facepass("export", "--instance")
    lines = [json.loads(line) for line in facepass("export", "--instance").stdout.splitlines()]
    assert [(line["number"], line["action"], line["actor_kind"]) for line in lines] == [
        (number, "audit.exported", "cli") for number in (1, 2, 3)
    ]
    assert (tmp_path / "audit.jsonl").read_text().splitlines() == facepass("export", "--instance").stdout.splitlines()[
        :1
    ]
    listed = json.loads(facepass("list", "--instance", "--limit", "2", "--json").stdout)
    assert [one["number"] for one in listed] == [4, 3]
    assert "audit.exported" in facepass("list", "--instance").stdout
    (verified,) = json.loads(facepass("verify", "--all", "--json").stdout)
    assert (verified["chain"], verified["report"]["sound"], verified["report"]["entries"]) == ("the instance", True, 4)


def test_what_was_done_to_the_log_is_named_and_ends_in_status_1(facepass: Facepass, database_url: str) -> None:
    for _ in range(4):
        facepass("export", "--instance")
    head = next(
        line.removeprefix("head: ")
        for line in facepass("verify", "--instance").stdout.splitlines()
        if line.startswith("head: ")
    )
    asyncio.run(_tampered(database_url))
    said = facepass("verify", "--instance", status=1).stdout
    assert "removed" in said
    (report,) = json.loads(facepass("verify", "--instance", "--json", status=1).stdout)
    assert [(one["number"], one["fault"]) for one in report["report"]["findings"]] == [(2, "removed"), (3, "unlinked")]
    number, _, mac = head.partition(":")
    assert number == "4"
    facepass("verify", "--instance", "--head", f"9:{mac}", status=1)
    facepass("verify", "--all", "--head", head, status=2)
    asyncio.run(_with_chains_of(database_url))
    checked = json.loads(facepass("verify", "--all", "--json", status=1).stdout)
    chains = {one["chain"]: one["report"]["findings"] for one in checked}
    assert set(chains) == {"the instance", "north", "south", f"{GONE}, which is gone"}
    assert [(one["number"], one["fault"]) for one in chains["south"]] == [(1, "removed")]


async def _tampered(url: str) -> None:
    await execute(url, "ALTER TABLE audit_entries DISABLE TRIGGER ALL")
    await execute(url, "DELETE FROM audit_entries WHERE number = 2")


async def _with_chains_of(url: str) -> None:
    """Chains of a workspace and of one that is gone: of what the instance's head says. Another has none any more."""
    for name, one in (("north", THERE), ("south", WITHOUT)):
        await execute(url, f"INSERT INTO workspaces (id, name, created_at) VALUES ('{one}', '{name}', now())")  # noqa: S608 - our own words
    copied = "number, mac, seal FROM audit_heads ORDER BY workspace_id LIMIT 1"
    for one in (THERE, GONE):
        await execute(url, f"INSERT INTO audit_heads SELECT '{one}'::uuid, {copied}")
