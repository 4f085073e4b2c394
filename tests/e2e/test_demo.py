import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

pytestmark = pytest.mark.models

CHECKOUT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-P", "-m", "entrypoints.cli", "demo")
PATIENCE = 300.0
NOT_INSTALLED = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "insightface" else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from entrypoints.cli.main import main
main(["demo"], prog_name="facepass")
"""


@contextmanager
def temporary(open_pack_dir: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """An environment whose temporary files can be counted."""
    with tempfile.TemporaryDirectory(prefix="facepass-tests-") as folder:
        Path(folder).chmod(0o711)
        bare = {name: value for name, value in os.environ.items() if not name.startswith("FACEPASS_")}  # noqa: TID251 - what a shell hands on
        yield {**bare, "TMPDIR": folder, "FACEPASS_MODELS__DIR": str(open_pack_dir)}, Path(folder)


def test_every_answer_of_the_demo_is_right_and_nothing_is_left(open_pack_dir: Path, tmp_path: Path) -> None:
    with temporary(open_pack_dir) as (environment, folder):
        done = subprocess.run(
            [*COMMAND, "--output", str(tmp_path), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=tmp_path,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert [one for one in shown["asked"] if not one["right"]] == []
        questions = {one["question"] for one in shown["asked"]}
        assert {"who is it?", "who are they?", "is it person-1?"} <= questions
        assert {one["answer"] for one in shown["asked"]} >= {"nobody", "yes", "no", "eileen-collins", "tom-hanks"}
        with Image.open(shown["picture"]) as picture:
            assert min(picture.size) > 500
        assert list(folder.iterdir()) == []


def test_a_demo_that_stays_serves_its_pages_and_is_removed_by_an_interrupt(open_pack_dir: Path, tmp_path: Path) -> None:
    with temporary(open_pack_dir) as (environment, folder):
        staying = subprocess.Popen(
            [*COMMAND, "--serve", "--output", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=tmp_path,
        )
        try:
            assert staying.stdout is not None
            lines = iter(staying.stdout.readline, "")
            address = next(line.split("API pages: ")[1].strip() for line in lines if "API pages: " in line)
            assert "fp_" in next(lines)
            with urlopen(address, timeout=PATIENCE) as page:  # noqa: S310 - the address that the demo printed
                assert page.status == 200
        finally:
            staying.send_signal(signal.SIGINT)
            _, errors = staying.communicate(timeout=PATIENCE)
        assert staying.returncode == 0, errors
        assert list(folder.iterdir()) == []


def test_without_the_photographs_it_says_how_to_get_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "pip install 'facepass[demo]'" in done.stderr
