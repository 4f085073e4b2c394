import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.models]

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Operator:
    """Somebody at a shell, beside a database that is there already."""

    environment: dict[str, str]
    folder: Path

    def runs(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "entrypoints.cli", *arguments],
            input=typed,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=Path(__file__).parents[2],
            timeout=120,
            check=False,
        )

    def done(self, *arguments: str) -> None:
        done = self.runs(*arguments)
        assert done.returncode == 0, done.stderr

    def tells(self, *arguments: str, typed: str = "") -> Any:  # noqa: ANN401 - JSON is anything
        done = self.runs(*arguments, "--json", typed=typed)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def operator(database_url: str, open_pack_dir: Path, tmp_path: Path) -> Operator:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("FACEPASS_")}  # noqa: TID251 - what a shell hands on
    ours = {
        "FACEPASS_DATABASE__URL": database_url,
        "FACEPASS_DATA_DIR": str(tmp_path / "data"),
        "FACEPASS_MODELS__DIR": str(open_pack_dir),
        "FACEPASS_HTTP__PUBLIC_URL": "https://faces.example.org/",
        "FACEPASS_LOG_LEVEL": "error",
    }
    return Operator({**bare, **ours}, tmp_path)


def test_at_a_terminal_a_password_is_asked_for_twice_and_never_shown(operator: Operator) -> None:
    ours, theirs = os.openpty()
    # A session of its own, so that the question does not go to the terminal of whoever runs the tests.
    command = subprocess.Popen(
        [sys.executable, "-m", "entrypoints.cli", "bootstrap", "--admin-email", "root@example.org"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=operator.environment,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    os.close(theirs)
    said = ""
    for asked in ("Password of the administrator: ", "Repeat for confirmation: "):
        while not said.endswith(asked):
            said += os.read(ours, 1024).decode()
        os.write(ours, f"{PASSWORD}\n".encode())
    with contextlib.suppress(OSError):  # how Linux says that nobody is at the other end any more
        while more := os.read(ours, 1024):
            said += more.decode()
    os.close(ours)
    assert command.wait(timeout=60) == 0, said
    assert PASSWORD not in said
    (root,) = operator.tells("users", "list")
    assert (root["email"], root["has_password"], root["administrator"]) == ("root@example.org", True, True)


def test_an_administrator_is_made_and_accounts_are_looked_after(operator: Operator) -> None:
    made = operator.tells("bootstrap", "--admin-email", "root@example.org", typed=PASSWORD + "\n")
    (root,) = operator.tells("users", "list")
    assert (root["id"], root["email"], root["administrator"]) == (made["administrator_id"], "root@example.org", True)
    link = operator.runs("users", "password-link", "ROOT@example.org")
    assert link.stdout.startswith("https://faces.example.org/account#fl_")
    last = operator.runs("users", "delete", "root@example.org")
    assert last.returncode == 1
    assert "last_administrator" in last.stderr or "last administrator" in last.stderr
    assert operator.tells("keys", "rotate-signing")["key_id"]


def test_an_administrator_who_is_refused_costs_no_first_key(operator: Operator) -> None:
    for address, password in (("no address", PASSWORD), ("root@example.org", "short")):
        refused = operator.runs("bootstrap", "--admin-email", address, typed=password + "\n")
        assert (refused.returncode, refused.stdout) == (1, "")
    made = operator.tells("bootstrap", "--admin-email", "root@example.org", typed=PASSWORD + "\n")
    assert made["created"]
    assert made["api_key"].startswith("fp_")


def test_accounts_are_invited_deleted_restored_and_made_administrators_again(operator: Operator) -> None:
    made = operator.tells("bootstrap", "--admin-email", "root@example.org", typed=PASSWORD + "\n")
    link = operator.tells("users", "invite", "--workspace", "default", "--role", "operator", "--email", "a@example.org")
    assert link["purpose"] == "invitation"
    assert link["url"] == f"https://faces.example.org/account#{link['token']}"
    two = operator.tells("bootstrap", "--admin-email", "two@example.org", typed=PASSWORD + "\n")
    assert (two["created"], two["api_key"], two["workspace_id"]) == (False, None, made["workspace_id"])
    operator.done("users", "delete", "TWO@example.org")
    assert [one["id"] for one in operator.tells("users", "list", "--deleted")] == [two["administrator_id"]]
    operator.done("users", "restore", "two@example.org")
    again = operator.tells("bootstrap", "--admin-email", "Two@example.org", typed=PASSWORD + " staple\n")
    assert (again["administrator_id"], again["api_key"]) == (two["administrator_id"], None)
    accounts = [(one["id"], one["administrator"]) for one in operator.tells("users", "list")]
    assert accounts == [(made["administrator_id"], True), (two["administrator_id"], True)]


def test_a_password_is_no_option_of_a_command(operator: Operator) -> None:
    said = operator.runs("bootstrap", "--help").stdout
    assert "--admin-email" in said
    assert "--password" not in said
