import subprocess
import sys
from pathlib import Path

import click
import pytest

from entrypoints.cli.main import SECTIONS, main

COMMANDS = [(name, sentence) for section in SECTIONS.values() for name, (_, sentence) in section.items()]
HEAVY = ("litestar", "sqlalchemy", "onnxruntime", "cv2", "numpy", "matplotlib")


@pytest.mark.parametrize(("name", "sentence"), COMMANDS)
def test_the_list_of_commands_says_what_each_one_says_of_itself(name: str, sentence: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.get_short_help_str(limit=75) == sentence


def test_help_imports_no_library_that_takes_time() -> None:
    looked = (
        "import sys; from entrypoints.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_the_inference_library_reports_to_nobody(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import adapters.inference.sessions"],
        env={"HOME": str(tmp_path), "PATH": ""},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.returncode == 0
    assert list(tmp_path.rglob("*")) == []
