import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from dishka import Scope
from PIL import Image

from application.ports.record import Record
from application.ports.repositories import WorkspaceRepository
from application.ports.vector_index import VectorIndex
from entrypoints.cli.main import main
from entrypoints.settings import read_settings
from entrypoints.wiring.startup import opened

pytestmark = [pytest.mark.models, pytest.mark.faces]

PEOPLE = ("Ariel_Sharon", "Colin_Powell", "Donald_Rumsfeld")
ENROLLED = 3
"""Photographs of each, by number; the next ones are for questions."""
STRANGER = "George_W_Bush"
PATIENCE = 120.0

# Imports take longer than most commands: they are done once, and every command is a fork of that.
FORKS = """
import json, os, sys
from importlib import import_module
from entrypoints.cli.main import SECTIONS, main
for section in SECTIONS.values():
    for module, _ in section.values():
        import_module(module)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((1, order["out"]), (2, order["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        main(order["arguments"], prog_name="facepass")
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        return json.loads(self.out)


class Operator:
    """Somebody at a shell, with settings of their own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.environment = {f"FACEPASS_{name}": value for name, value in settings.items()}
        bare = {name: value for name, value in os.environ.items() if not name.startswith("FACEPASS_")}  # noqa: TID251 - what a shell hands on
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=bare
        )

    def begins(self, *arguments: str | Path) -> int:
        order = {
            "arguments": [str(argument) for argument in arguments],
            "environment": self.environment,
            "folder": str(self.folder),
            "out": str(self.folder / "out"),
            "err": str(self.folder / "err"),
        }
        for name in ("out", "err"):
            (self.folder / name).write_text("")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def ends(self) -> Done:
        assert self.process.stdout is not None
        status = int(self.process.stdout.readline())
        return Done(status, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def runs(self, *arguments: str | Path) -> Done:
        self.begins(*arguments)
        done = self.ends()
        assert "Traceback" not in done.err
        return done

    def leaves(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def operator(open_pack_dir: Path) -> Iterator[Operator]:
    folder = Path(tempfile.mkdtemp(prefix="facepass-cli-"))
    folder.chmod(0o711)
    someone = Operator(folder, DATA_DIR=str(folder / "data"), MODELS__DIR=str(open_pack_dir))
    try:
        yield someone
    finally:
        someone.leaves()
        subprocess.run(
            [sys.executable, "-c", WAIT_FOR_THE_END, str(folder / "data")],
            check=True,
            cwd=Path(__file__).parents[2],
        )
        shutil.rmtree(folder)


WAIT_FOR_THE_END = """
import asyncio, sys
from entrypoints.settings import read_settings
from entrypoints.wiring.database_commands import ended
settings = read_settings({"FACEPASS_DATA_DIR": sys.argv[1]}, dotenv=None)
assert asyncio.run(ended(settings, timeout=60.0))
"""


MAKE_A_STRICT_GALLERY = """
import asyncio, sys
from dishka import Scope
from application.use_cases.galleries.create_gallery import CreateGallery
from domain.gallery import Policy
from entrypoints.cli.places import workspace_named
from entrypoints.settings import read_settings
from entrypoints.wiring.startup import opened
settings = read_settings({"FACEPASS_DATA_DIR": sys.argv[1], "FACEPASS_MODELS__DIR": sys.argv[2]}, dotenv=None)
async def make():
    async with opened(settings) as container, container(scope=Scope.REQUEST) as unit:
        create = await unit.get(CreateGallery)
        workspace = await workspace_named(container, "default")
        await create(workspace=workspace, name="strict", policy=Policy(search_threshold=1.0))
asyncio.run(make())
"""


@pytest.fixture(scope="module")
def album(lfw_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some people, and a file that is no image."""
    folder = tmp_path_factory.mktemp("album")
    for person in PEOPLE:
        (folder / person).mkdir()
        for number in range(1, ENROLLED + 1):
            shutil.copy(photograph(lfw_mini, person, number), folder / person)
    (folder / PEOPLE[0] / "letter.jpg").write_text("dear sir")
    return folder


@pytest.fixture(scope="module")
def gallery(operator: Operator, album: Path) -> dict[str, Any]:
    """The default gallery with the people of the album in it, as the enrolment reported it."""
    assert operator.runs("bootstrap").status == 0
    done = operator.runs("enrol", album, "--json", "--report", operator.folder / "report.jsonl")
    assert done.status == 0, done.err
    report: dict[str, Any] = done.json
    return report


def photograph(folder: Path, person: str, number: int) -> Path:
    return folder / person / f"{person}_{number:04}.jpg"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [(), *commands(main)], ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*path, "--help"], prog_name="facepass")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: {' '.join(('facepass', *path))}")
    described = done.output.split("\n")[2].strip()
    assert described.endswith((".", ":"))


def test_models_need_no_database(operator: Operator) -> None:
    packs = {pack["pack"]: pack for pack in operator.runs("models", "list", "--json").json}
    assert packs["open@1"]["state"] == "ready"
    assert packs["open@1"]["commercial"] is True
    assert "photographs" in packs["open@1"]["training_data"]
    assert packs["buffalo_l@1"]["commercial"] is False
    assert operator.runs("models", "verify", "open").status == 0
    assert operator.runs("models", "pull", "open").status == 0


def test_commercial_use_is_never_shown_without_what_the_licence_leaves_out(operator: Operator) -> None:
    for command in (("models", "list"), ("models", "show", "open"), ("models", "pull", "open")):
        shown = " ".join(operator.runs(*command).out.split()).lower()
        assert "commercial use" in shown
        assert "says nothing of the photographs they were trained on" in shown


def test_a_pack_says_for_which_galleries_it_is_good(operator: Operator) -> None:
    shown = operator.runs("models", "show", "open", "--json").json["calibration"]
    assert [one["target_fmr"] for one in shown["thresholds"]] == [1e-2, 1e-3, 1e-4, 1e-5]
    sizes = {one["references"]: one["expected"]["outgrown"] for one in shown["capacity"]}
    assert list(sizes) == [100, 1_000, 10_000, 100_000]
    assert sizes[100_000]
    assert "outgrown" in operator.runs("models", "show", "open").out


def test_an_unknown_pack_is_one_line_with_a_code(operator: Operator) -> None:
    done = operator.runs("models", "show", "nothing")
    assert done.status == 1
    assert done.err.strip().endswith("(unknown_pack)")
    assert len(done.err.strip().splitlines()) == 1


def test_a_workspace_that_is_not_there_says_how_one_is_made(operator: Operator, lfw_mini: Path) -> None:
    done = operator.runs("search", photograph(lfw_mini, STRANGER, 1), "--workspace", "other")
    assert done.status == 1
    assert "facepass bootstrap --workspace other" in done.err


def test_enrolling_a_folder_says_what_became_of_each_image(gallery: dict[str, Any], operator: Operator) -> None:
    images = len(PEOPLE) * ENROLLED + 1
    assert gallery["people"] == len(PEOPLE)
    assert gallery["images"] == images
    assert gallery["refused"]["not_an_image"] == 1
    assert gallery["enrolled"] + sum(gallery["refused"].values()) == images
    assert gallery["capacity"]["references"] == gallery["enrolled"]
    lines = [json.loads(line) for line in (operator.folder / "report.jsonl").read_text().splitlines()]
    assert len(lines) == images
    assert {"status": "refused", "person": PEOPLE[0], "file": "letter.jpg", "code": "not_an_image"}.items() <= next(
        line for line in lines if line["file"] == "letter.jpg"
    ).items()


def test_enrolling_again_skips_what_is_enrolled(gallery: dict[str, Any], operator: Operator, album: Path) -> None:
    again = operator.runs("enrol", album, "--json").json
    assert again["enrolled"] == 0
    assert again["enrolled_before"] == gallery["enrolled"]
    assert again["refused"] == gallery["refused"]
    assert again["capacity"] == gallery["capacity"]


def test_refused_images_are_named_with_their_reason(gallery: dict[str, Any], operator: Operator, album: Path) -> None:
    assert gallery["refused"]
    shown = operator.runs("enrol", album, "--verbose").out
    assert "not an image" in shown
    assert f"{PEOPLE[0]}/letter.jpg: not_an_image" in shown


def test_a_flat_folder_is_explained(operator: Operator, album: Path) -> None:
    done = operator.runs("enrol", album / PEOPLE[0])
    assert done.status == 1
    assert "<person>/<image>.jpg" in " ".join(done.err.split())


def test_a_folder_that_is_not_there_is_a_wrong_call(operator: Operator) -> None:
    assert operator.runs("enrol", operator.folder / "nowhere").status == 2


def test_an_interrupted_enrolment_goes_on_where_it_stopped(operator: Operator, lfw_mini: Path) -> None:
    operator.runs("bootstrap", "--workspace", "second")
    report = operator.folder / "interrupted.jsonl"
    child = operator.begins("enrol", lfw_mini, "--workspace", "second", "--report", report)
    deadline = time.monotonic() + PATIENCE
    while not report.exists() or "enrolled" not in report.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    done = operator.ends()
    assert done.status == 130
    assert "goes on where it stopped" in done.err
    told = sum(json.loads(line)["status"] == "enrolled" for line in report.read_text().splitlines())
    after = operator.runs("enrol", lfw_mini, "--workspace", "second", "--json").json
    assert 0 < told <= after["enrolled_before"] < after["images"]
    assert after["enrolled"] + after["enrolled_before"] + sum(after["refused"].values()) == after["images"]
    assert after["capacity"]["references"] == after["enrolled"] + after["enrolled_before"]


@pytest.mark.usefixtures("gallery")
class TestMatching:
    def test_the_right_person_is_a_match(self, operator: Operator, lfw_mini: Path) -> None:
        probe = photograph(lfw_mini, PEOPLE[1], ENROLLED + 1)
        assert operator.runs("verify", probe, "--person", PEOPLE[1]).status == 0
        found = operator.runs("search", probe, "--json")
        assert found.status == 0
        assert found.json["faces"][0]["matches"][0]["person"]["external_id"] == PEOPLE[1]

    def test_somebody_else_is_no_match(self, operator: Operator, lfw_mini: Path) -> None:
        done = operator.runs("verify", photograph(lfw_mini, STRANGER, 1), "--person", PEOPLE[1])
        assert done.status == 10
        assert "no match" in done.out
        assert "one false match in 1,000" in done.out

    def test_a_stranger_is_nobody(self, operator: Operator, lfw_mini: Path) -> None:
        done = operator.runs("search", photograph(lfw_mini, STRANGER, 1))
        assert done.status == 10
        assert "nobody enrolled" in done.out

    def test_a_search_says_that_the_gallery_has_outgrown_its_pack(
        self, operator: Operator, open_pack_dir: Path, lfw_mini: Path
    ) -> None:
        arguments = [str(operator.folder / "data"), str(open_pack_dir)]
        here = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", MAKE_A_STRICT_GALLERY, *arguments], check=True, cwd=here)
        probe = photograph(lfw_mini, STRANGER, 1)
        assert "Use a stronger pack" in operator.runs("search", probe, "--gallery", "strict").out
        assert "Use a stronger pack" not in operator.runs("search", probe).out

    def test_what_the_data_does_not_carry_is_uncertain(self, operator: Operator, lfw_mini: Path) -> None:
        probe = photograph(lfw_mini, PEOPLE[1], 1)
        done = operator.runs("verify", probe, "--person", PEOPLE[1], "--target-fmr", "1e-9")
        assert done.status == 11
        assert "not measured far enough" in done.out

    def test_one_reference_can_be_asked_about(self, operator: Operator, lfw_mini: Path) -> None:
        probe = photograph(lfw_mini, PEOPLE[2], 1)
        reference = operator.runs("verify", probe, "--person", PEOPLE[2], "--json").json["reference_id"]
        assert operator.runs("verify", probe, "--reference", reference, "--json").json["similarity"] > 0.999

    def test_two_images_can_be_compared(self, operator: Operator, lfw_mini: Path) -> None:
        one, other = photograph(lfw_mini, PEOPLE[1], 1), photograph(lfw_mini, STRANGER, 1)
        assert operator.runs("compare", one, one).status == 0
        assert operator.runs("compare", one, other).status == 10
        assert operator.runs("verify", one, "--other", other, "--json").json["verified"] is False

    def test_an_unknown_person_is_an_error(self, operator: Operator, lfw_mini: Path) -> None:
        done = operator.runs("verify", photograph(lfw_mini, STRANGER, 1), "--person", "nobody")
        assert done.status == 1
        assert done.err.strip().endswith("(person_not_found)")

    def test_an_unknown_gallery_is_an_error(self, operator: Operator, lfw_mini: Path) -> None:
        done = operator.runs("search", photograph(lfw_mini, STRANGER, 1), "--gallery", "nowhere")
        assert done.status == 1
        assert done.err.strip().endswith("(gallery_not_found)")

    def test_naming_two_is_a_wrong_call(self, operator: Operator, lfw_mini: Path) -> None:
        probe = photograph(lfw_mini, STRANGER, 1)
        assert operator.runs("verify", probe, "--person", "a", "--other", probe).status == 2
        assert operator.runs("verify", probe).status == 2

    def test_a_bad_image_is_one_line_with_a_code(self, operator: Operator, album: Path) -> None:
        for command in ("detect", "search"):
            done = operator.runs(command, album / PEOPLE[0] / "letter.jpg")
            assert done.status == 1
            assert done.err.strip().endswith("(not_an_image)")

    @pytest.mark.parametrize("command", [("detect",), ("search", "--all-faces")], ids=" ".join)
    def test_a_picture_is_drawn(self, operator: Operator, lfw_mini: Path, command: tuple[str, ...]) -> None:
        picture = operator.folder / f"{command[0]}.png"
        probe = photograph(lfw_mini, PEOPLE[1], ENROLLED + 1)
        assert operator.runs(*command, probe, "--output", picture).status == 0
        with Image.open(picture) as drawn, Image.open(probe) as before:
            assert min(drawn.size) > min(before.size)
            colours = drawn.getcolors(drawn.width * drawn.height) or []
        assert (74, 222, 128) in {colour for _, colour in colours}

    def test_a_picture_that_cannot_be_written_is_refused_before_any_work(
        self, operator: Operator, lfw_mini: Path
    ) -> None:
        probe = photograph(lfw_mini, PEOPLE[1], 1)
        for place in (operator.folder / "picture.txt", operator.folder / "nowhere" / "picture.png"):
            done = operator.runs("detect", probe, "--output", place)
            assert done.status == 1
            assert done.out == ""

    async def test_an_index_that_was_lost_is_named_and_made_anew(
        self, gallery: dict[str, Any], operator: Operator, lfw_mini: Path
    ) -> None:
        assert operator.runs("index", "verify", "--all").status == 0
        await lose_the_index(operator)
        found = operator.runs("index", "verify", "--json")
        assert found.status == 1
        assert len(found.json[0]["missing"]) == gallery["enrolled"]
        repaired = operator.runs("index", "verify", "--repair", "--json")
        assert repaired.status == 0
        assert repaired.json[0]["repaired"] is True
        assert operator.runs("search", photograph(lfw_mini, PEOPLE[1], 1)).status == 0
        rebuilt = operator.runs("index", "rebuild", "--all", "--json").json
        assert {"gallery": "default", "references": gallery["enrolled"]} in rebuilt

    def test_the_database_says_where_it_is(self, operator: Operator) -> None:
        assert operator.runs("db", "current").status == 0
        assert operator.runs("db", "upgrade").status == 0
        status = operator.runs("db", "status", "--json").json
        assert status["kind"] == "embedded"
        assert status["where"] == str(operator.folder / "data" / "postgres")


async def lose_the_index(operator: Operator) -> None:
    async with opened(read_settings(operator.environment, dotenv=None)) as container:
        async with container(scope=Scope.REQUEST) as unit:
            workspaces: WorkspaceRepository = await unit.get(WorkspaceRepository)
            workspace = await workspaces.named("default")
        assert workspace is not None
        record, index = await container.get(Record), await container.get(VectorIndex)
        await index.clear((await record.gallery(workspace.id, "default")).id)


def test_settings_are_listed_without_their_secrets(tmp_path: Path) -> None:
    environment = {
        "FACEPASS_DATABASE__URL": "postgresql://someone:secret@host/facepass",
        "FACEPASS_HTTP__PORT": "8123",
        "FACEPASS_DATA_DIR": str(tmp_path / "data"),
    }
    operator = Operator(tmp_path)
    operator.environment = environment
    try:
        shown = {one["setting"]: one for one in operator.runs("config", "--json").json}
        assert shown["FACEPASS_HTTP__PORT"] == {
            "setting": "FACEPASS_HTTP__PORT",
            "value": "8123",
            "from": "environment",
        }
        assert shown["FACEPASS_DATABASE__URL"]["value"] == "postgresql://someone:***@host/facepass"
        assert shown["FACEPASS_DATABASE__POOL_SIZE"]["from"] == "default"
        operator.environment["FACEPASS_HTTP__PROT"] = "1"
        done = operator.runs("config")
        assert done.status == 1
        assert "Did you mean FACEPASS_HTTP__PORT?" in done.err
    finally:
        operator.leaves()


def test_an_error_shows_where_it_comes_from_only_when_asked(operator: Operator, album: Path) -> None:
    operator.begins("--debug", "detect", album / PEOPLE[0] / "letter.jpg")
    done = operator.ends()
    assert done.status == 1
    assert "Traceback" in done.err
    assert done.err.strip().endswith("(not_an_image)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_a_service_that_is_stopped_ends_in_order(operator: Operator, number: signal.Signals) -> None:
    child = operator.begins("serve", "--port", "0")
    deadline = time.monotonic() + PATIENCE
    while "listens on" not in (operator.folder / "out").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child, number)
    done = operator.ends()
    assert done.status == 0
    assert "Traceback" not in done.err
    assert operator.runs("db", "status", "--json").json["processes"] == 0
