from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from entrypoints.cli.index import index


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Calls commands in a folder of their own; nothing that these do gets as far as a database."""
    monkeypatch.chdir(tmp_path)
    return CliRunner(env={"FACEPASS_DATA_DIR": str(tmp_path / "data")})


def migrate(runner: CliRunner, *arguments: str, **settings: str) -> Result:
    return runner.invoke(index, ["migrate", *arguments], env=settings)


@pytest.mark.parametrize("arguments", [(), ("--to", "qdrant", "--drop", "pgvector")])
def test_one_of_to_and_drop_must_be_said(runner: CliRunner, arguments: tuple[str, ...]) -> None:
    done = migrate(runner, *arguments)
    assert done.exit_code == 2
    assert "--to or --drop" in done.stderr


def test_an_index_that_is_not_set_up_says_what_to_set_and_where(
    runner: CliRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    done = migrate(runner, "--to", "qdrant", "--yes")
    assert done.exit_code == 1
    said = " ".join((done.output + capsys.readouterr().err).split())
    assert "On every node, set FACEPASS_NEXT_VECTOR_INDEX__BACKEND" in said
    assert "FACEPASS_NEXT_VECTOR_INDEX__NAME=qdrant" in said


def test_nothing_happens_without_consent(runner: CliRunner, tmp_path: Path) -> None:
    done = migrate(runner, "--to", "pgvector")
    assert done.exit_code == 1
    assert "will answer no searches" in done.stderr
    assert list(tmp_path.iterdir()) == []
