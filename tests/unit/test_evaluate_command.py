import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from adapters.packs.calibration import PackCalibrations
from application.ports.clock import Clock
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.model_packs import ModelPacks, Progress
from application.use_cases.evaluation.embed_photographs import AT_ONCE, EmbedPhotographs, Photograph
from domain.embedding import Embedding, EmbeddingSpace
from domain.errors import InvalidValue, NotAnImage, UnknownPack
from domain.face import Analysis, Box, Embed, Face, Landmarks, Point
from domain.model_pack import ModelPack, PackReport, PackStatus
from domain.quality import Pose, Quality
from entrypoints.cli.evaluate import MeasuringTools, calibrate, evaluate

SPACE = EmbeddingSpace(model="drawn@1", digest="ab" * 32, dimension=16)
PNG = b"\x89PNG"


def drawing(person: str, number: int) -> bytes:
    return PNG + f"{person}/{number}".encode()


class Draughtsman(FaceEmbedder):
    """Sees `drawing`s: the person decides where the vector lies, the number moves it a little."""

    def __init__(self, *, busy: int = 0, down: bool = False) -> None:
        self.busy = busy
        self.down = down
        self.at_once = 0
        self.most_at_once = 0

    @property
    def space(self) -> EmbeddingSpace:
        return SPACE

    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        assert embed is Embed.ALL
        if self.down:
            raise PortUnavailable("face_embedder", "the model is gone")
        if self.busy:
            self.busy -= 1
            raise PortBusy("face_embedder", "full", retry_after=0.0)
        if not image.startswith(PNG):
            raise NotAnImage("these bytes are no image")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        drawn = image.removeprefix(PNG).decode()
        faces = {"landscape": (), "bystander": (face("somebody/0", Box(0, 0, 48, 100)), face("b/0"))}
        return Analysis(width=100, height=100, faces=faces.get(drawn, (face(drawn),)))

    async def close(self) -> None:
        pass


def face(drawn: str, box: Box = Box(10, 10, 90, 90)) -> Face:  # noqa: B008 - a frozen value
    person, _, _ = drawn.partition("/")
    vector = direction(person) + 0.3 * direction(drawn)
    return Face(
        box=box,
        landmarks=Landmarks(Point(30, 40), Point(70, 40), Point(50, 60), Point(35, 75), Point(65, 75)),
        confidence=0.9,
        pose=Pose(0.0, 0.0, 0.0),
        quality=Quality(1.0, ()),
        embedding=Embedding.normalised(vector, SPACE.id),
    )


def direction(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=SPACE.dimension)
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


class NoPacks(ModelPacks):
    """A registry in which there is nothing."""

    def get(self, name: str) -> ModelPack:
        raise UnknownPack(name)

    def listed(self) -> Sequence[PackStatus]:
        return ()

    def pull(self, name: str, progress: Progress) -> PackStatus:  # noqa: ARG002 - the port's signature
        raise UnknownPack(name)

    def verify(self, name: str) -> PackReport:
        raise UnknownPack(name)

    def files(self, name: str) -> dict[str, Path]:
        raise UnknownPack(name)


class NewYear(Clock):
    """Always the same day."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def silently(done: int, total: int) -> None:
    assert 0 < done <= total


def album(folder: Path, people: int, images: int) -> Path:
    for number in range(people):
        person = folder / f"person{number:03}"
        person.mkdir(parents=True)
        for image in range(images):
            (person / f"{image}.png").write_bytes(drawing(person.name, image))
    return folder


class Desk:
    """The commands, with their tools laid out."""

    def __init__(self, folder: Path) -> None:
        self.calibrations = PackCalibrations(folder, packs=NoPacks())
        self.embedder = Draughtsman()
        self.packs: list[str | None] = []

    @asynccontextmanager
    async def open_tools(self, pack: str | None) -> AsyncIterator[MeasuringTools]:
        self.packs.append(pack)
        yield MeasuringTools(embedder=self.embedder, calibrations=self.calibrations, clock=NewYear())

    def evaluate(self, *arguments: object) -> Result:
        return CliRunner(env={"COLUMNS": "160"}).invoke(
            evaluate, [str(each) for each in arguments], obj=self.open_tools
        )

    def calibrate(self, *arguments: object) -> Result:
        return CliRunner(env={"COLUMNS": "160"}).invoke(
            calibrate, [str(each) for each in arguments], obj=self.open_tools
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "calibrations")


class TestEmbedding:
    async def test_of_several_faces_the_one_at_the_centre_is_meant(self) -> None:
        given = [
            Photograph(person="b", name="b/0", load=lambda: PNG + b"bystander"),
            Photograph(person="b", name="b/1", load=lambda: drawing("b", 0)),
            Photograph(person="c", name="c/0", load=lambda: drawing("c", 0)),
        ]
        found = await EmbedPhotographs(embedder=Draughtsman())(photographs=given, progress=silently)
        assert found.several_faces == 1
        first, second, _ = found.photographs.vectors
        assert np.array_equal(first, second)

    async def test_the_order_in_which_images_end_changes_nothing(self) -> None:
        given = [
            Photograph(person=person, name=f"{person}/{number}", load=lambda p=person, n=number: drawing(p, n))  # type: ignore[misc] # mypy cannot infer lambdas with defaults
            for person in ("b", "a", "c")
            for number in (2, 0, 1)
        ]
        embed = EmbedPhotographs(embedder=Draughtsman())
        one = await embed(photographs=given, progress=silently)
        other = await embed(photographs=given[::-1], progress=silently)
        assert np.array_equal(one.photographs.vectors, other.photographs.vectors)
        assert np.array_equal(one.photographs.people, other.photographs.people)

    async def test_progress_reaches_the_end_and_work_is_bounded(self) -> None:
        embedder = Draughtsman(busy=3)
        told: list[tuple[int, int]] = []
        given = [Photograph(person=str(n % 7), name=str(n), load=lambda: drawing("x", 1)) for n in range(50)]
        await EmbedPhotographs(embedder=embedder)(photographs=given, progress=lambda *step: told.append(step))
        assert told == [(done, 50) for done in range(1, 51)]
        assert embedder.busy == 0
        assert 1 < embedder.most_at_once <= AT_ONCE

    async def test_what_cannot_be_read_is_left_out_and_named(self) -> None:
        def gone() -> bytes:
            raise FileNotFoundError("it was there a moment ago")

        given = [
            Photograph(person="a", name="a/1", load=lambda: drawing("a", 1)),
            Photograph(person="a", name="a/2", load=lambda: b"text"),
            Photograph(person="b", name="b/1", load=lambda: PNG + b"landscape"),
            Photograph(person="b", name="b/2", load=gone),
        ]
        embedded = await EmbedPhotographs(embedder=Draughtsman())(photographs=given, progress=silently)
        assert [each.name for each in embedded.unreadable] == ["a/2", "b/2"]
        assert embedded.without_face == ("b/1",)
        assert embedded.photographs.images == 2

    async def test_two_people_of_whom_one_cannot_be_read_are_one(self) -> None:
        given = [
            Photograph(person="a", name="a/1", load=lambda: drawing("a", 1)),
            Photograph(person="b", name="b/1", load=lambda: b"text"),
        ]
        with pytest.raises(InvalidValue, match="one person only can be read"):
            await EmbedPhotographs(embedder=Draughtsman())(photographs=given, progress=silently)


class TestEvaluate:
    def test_it_states_thresholds_and_how_sure_they_are(self, desk: Desk, tmp_path: Path) -> None:
        result = desk.evaluate(album(tmp_path / "colleagues", 120, 3), "--pack", "drawn")
        assert result.exit_code == 0, result.output
        assert "drawn@1 on colleagues: 120 people, 360 photographs" in result.output
        assert "1,000 comparisons" in result.output
        assert "how sure (95 %)" in result.output
        assert desk.packs == ["drawn"]

    def test_a_rate_that_the_folder_does_not_carry_is_said_and_not_printed(self, desk: Desk, tmp_path: Path) -> None:
        result = desk.evaluate(album(tmp_path / "few", 30, 3))
        assert result.exit_code == 0, result.output
        assert "One false match in 1,000: too few photographs for a number" in result.output
        assert "1,000 comparisons" not in result.output
        assert "100 comparisons" in result.output

    def test_a_tiny_folder_is_answered_in_words(self, desk: Desk, tmp_path: Path) -> None:
        result = desk.evaluate(album(tmp_path / "tiny", 2, 1), "--output", tmp_path / "pictures")
        assert result.exit_code == 0, result.output
        assert "Nobody has two photographs" in result.output
        assert "1 are there" in result.output
        assert "60 are needed, 2 are there" in result.output
        assert list((tmp_path / "pictures").iterdir()) == []

    def test_figures_and_pictures_are_written_where_asked(self, desk: Desk, tmp_path: Path) -> None:
        folder = album(tmp_path / "colleagues", 100, 3)
        result = desk.evaluate(folder, "--json", tmp_path / "figures.json", "--output", tmp_path / "new" / "pictures")
        assert result.exit_code == 0, result.output
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert figures["evidence"]["source"] == "colleagues"
        assert [point["target"] for point in figures["operating_points"]] == [1e-2, 1e-3]
        assert figures["calibrated_on"] is None
        assert str(tmp_path) not in (tmp_path / "figures.json").read_text()
        assert sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir()) == ["det.png", "scores.png"]

    def test_the_curve_in_use_is_tried(self, desk: Desk, tmp_path: Path) -> None:
        folder = album(tmp_path / "colleagues", 120, 3)
        assert "no thresholds of its own" in desk.evaluate(folder).output
        assert desk.calibrate(folder, "--source", "our staff", "--write").exit_code == 0
        result = desk.evaluate(folder)
        assert "Thresholds in use (measured on our staff)" in result.output
        assert "of what it states" in result.output

    def test_photographs_without_a_face_are_counted_and_listed_on_request(self, desk: Desk, tmp_path: Path) -> None:
        folder = album(tmp_path / "colleagues", 20, 2)
        (folder / "person003" / "sea.png").write_bytes(PNG + b"landscape")
        (folder / "person004" / "broken.jpg").write_bytes(b"text")
        (folder / "person004" / "notes.txt").write_bytes(b"no photograph, and no business of ours")
        plain, verbose = desk.evaluate(folder), desk.evaluate(folder, "--verbose")
        assert "No face found in 1 photograph:" in plain.output
        assert "sea.png" not in plain.output
        assert "person003/sea.png" in verbose.output
        assert "person004/broken.jpg: these bytes are no image" in plain.output
        assert "notes.txt" not in verbose.output

    @pytest.mark.parametrize("command", ["evaluate", "calibrate"])
    def test_wrong_folders_are_refused_in_words(self, desk: Desk, tmp_path: Path, command: str) -> None:
        run = getattr(desk, command)
        loose = tmp_path / "loose"
        loose.mkdir()
        (loose / "a.png").write_bytes(drawing("a", 1))
        lonely = album(tmp_path / "lonely", 1, 5)
        for folder, words in (
            (tmp_path / "missing", "does not exist"),
            (loose, "holds no people: one folder for each is expected"),
            (lonely, "photographs of one person only"),
        ):
            result = run(folder)
            assert result.exit_code != 0
            assert words in " ".join(result.output.split())
            assert "Traceback" not in result.output

    def test_a_model_that_is_gone_ends_in_one_sentence(self, desk: Desk, tmp_path: Path) -> None:
        desk.embedder.down = True
        result = desk.evaluate(album(tmp_path / "colleagues", 20, 2))
        assert result.exit_code == 1
        assert result.output.strip() == "facepass: face embedder: the model is gone (dependency_unavailable)"


class TestCalibrate:
    def test_nothing_changes_unless_asked(self, desk: Desk, tmp_path: Path) -> None:
        result = desk.calibrate(album(tmp_path / "colleagues", 120, 3))
        assert result.exit_code == 0, result.output
        assert "Nothing was changed" in result.output
        assert not (tmp_path / "calibrations").exists()

    def test_a_second_curve_is_shown_beside_the_first(self, desk: Desk, tmp_path: Path) -> None:
        folder = album(tmp_path / "colleagues", 120, 3)
        first = desk.calibrate(folder, "--source", "our staff", "--write")
        assert "none in use" in first.output
        second = desk.calibrate(folder)
        assert "so far (our staff)" in second.output
        assert "(+0.0000)" in second.output
        assert "drawn@1" in " ".join(path.name for path in (tmp_path / "calibrations").iterdir())

    def test_the_curve_can_be_looked_at_in_a_file(self, desk: Desk, tmp_path: Path) -> None:
        result = desk.calibrate(album(tmp_path / "colleagues", 120, 3), "--output", tmp_path / "curve.toml")
        assert result.exit_code == 0, result.output
        text = (tmp_path / "curve.toml").read_text()
        assert 'source = "colleagues"' in text
        assert str(tmp_path) not in text

    def test_too_few_photographs_are_refused_in_words(self, desk: Desk, tmp_path: Path) -> None:
        result = desk.calibrate(album(tmp_path / "few", 5, 2), "--write")
        assert result.exit_code == 1
        assert "too few to calibrate on" in " ".join(result.output.split())
        assert not (tmp_path / "calibrations").exists()

    def test_a_curve_that_cannot_be_read_does_not_stand_in_the_way_of_a_new_one(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        folder = album(tmp_path / "colleagues", 120, 3)
        assert desk.calibrate(folder, "--write").exit_code == 0
        (kept,) = (tmp_path / "calibrations").iterdir()
        kept.write_text("[calibration]\n")
        assert desk.evaluate(folder).exit_code == 1
        assert desk.calibrate(folder, "--write").exit_code == 0
        assert desk.evaluate(folder).exit_code == 0
