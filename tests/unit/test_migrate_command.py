from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from application.ports.index_states import IndexName, IndexState
from application.use_cases.upkeep.drop_index import Dropped
from application.use_cases.upkeep.move_index import Moved
from domain.embedding import SpaceId
from domain.gallery import Gallery, GalleryId, Policy
from domain.workspace import WorkspaceId
from entrypoints.cli import move_index
from entrypoints.cli.index import index

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = SpaceId("other@1:00")
UNSERVED = {
    SPACE: [
        Gallery(
            id=GalleryId(UUID(int=1)),
            workspace=WorkspaceId(UUID(int=2)),
            name="[visitors]",
            space=SPACE,
            policy=Policy(),
            created_at=NOW,
            updated_at=NOW,
            version=1,
        )
    ]
}


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


def test_a_move_that_lacks_models_says_whose_and_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    state = IndexState(serving=IndexName("pgvector"), changed_at=NOW)
    moved = Moved(state=state, references=1, compared=None, unserved=UNSERVED)
    move_index._print(moved)
    said = " ".join(capsys.readouterr().out.split())
    assert "'pgvector' goes on answering" in said
    assert f"[visitors] ({UUID(int=1)}): {SPACE}" in said
    assert "FACEPASS_NEXT_FACE_EMBEDDER__*" in said
    assert move_index._moved(moved)["done"] is False


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        (Dropped(set_up=True, unserved={}), "what it held is gone"),
        (Dropped(set_up=False, unserved=UNSERVED), "what it holds is there still"),
        (Dropped(set_up=True, cleared=(SPACE,), unserved={}), "what it holds of deleted galleries is there still"),
        (Dropped(set_up=True, unserved=UNSERVED), "[visitors]"),
    ],
    ids=["gone", "not set up", "cleared", "unserved"],
)
def test_dropping_says_what_is_left(dropped: Dropped, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    move_index._print_dropped("qdrant", dropped)
    assert expected in " ".join(capsys.readouterr().out.split())
    assert move_index._dropped("qdrant", dropped)["emptied"] is (expected == "what it held is gone")
