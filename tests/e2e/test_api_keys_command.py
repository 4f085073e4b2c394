import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from domain.credential import looks_like_key
from entrypoints.cli.main import main
from tests.conftest import execute


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """An installation with a workspace, and nothing that had to load a model."""
    asyncio.run(
        execute(
            database_url,
            "INSERT INTO workspaces (id, name, created_at)"
            " VALUES ('01a1f9ba-6210-711f-a62a-9f40b20f2bb1', 'default', now())",
        )
    )
    return {"FACEPASS_DATABASE__URL": database_url, "FACEPASS_DATA_DIR": str(tmp_path)}


def called(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, ["api-keys", *arguments], env=environment)


def test_a_key_is_made_listed_and_revoked(environment: dict[str, str]) -> None:
    made = called(environment, "create", "turnstile", "--scope", "search", "--days", "30", "--json")
    assert made.exit_code == 0, made.output
    key = json.loads(made.stdout)
    assert looks_like_key(key["api_key"])
    assert key["scopes"] == ["search"]
    (listed,) = json.loads(called(environment, "list", "--json").stdout)
    assert (listed["id"], listed["revoked_at"]) == (key["id"], None)
    assert key["api_key"] not in called(environment, "list").output
    assert called(environment, "revoke", key["id"]).exit_code == 0
    (listed,) = json.loads(called(environment, "list", "--json").stdout)
    assert listed["revoked_at"] is not None


def test_what_is_not_there_is_said(environment: dict[str, str]) -> None:
    assert called(environment, "revoke", "01a1f9ba-6210-711f-a62a-9f40b20f2bb1").exit_code == 1
    assert called(environment, "create", "x", "--gallery", "nowhere").exit_code == 1
    assert called(environment, "list", "--workspace", "nowhere").exit_code == 1
