"""`facepass evaluate` and `facepass calibrate`: how good the face model is on an operator's own photographs."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from application.ports.calibrations import Calibrations
from application.ports.clock import Clock
from application.ports.face_embedder import FaceEmbedder
from application.use_cases.evaluation.calibrate import Calibrate, NewCalibration
from application.use_cases.evaluation.embed_photographs import EmbeddingProgress, Photograph, Unreadable
from application.use_cases.evaluation.evaluate import FMR_TARGETS, Evaluate, Evaluation, MeasuredEvaluation
from domain.calibration import FEWEST_IMPOSTOR_PAIRS, Calibration
from domain.evaluation import (
    FEWEST_SEARCHES,
    OperatingPoint,
    SearchPoint,
    SearchTrial,
    SplitResult,
    Spread,
    StatedThreshold,
)
from entrypoints.cli.session import CommandFailed, run, session, settings_of_process
from entrypoints.cli.session import console as remarks

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_LISTED = 5
"""Unreadable photographs that are named without `--verbose`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringTools:
    """What the two commands need of the composition root."""

    embedder: FaceEmbedder
    calibrations: Calibrations
    clock: Clock


OpenTools = Callable[[str | None], AbstractAsyncContextManager[MeasuringTools]]
"""Opens the tools for a pack by name, None: the one that is set, and closes them again. Click's `obj`, where given."""


@asynccontextmanager
async def tools_of_process(pack: str | None) -> AsyncIterator[MeasuringTools]:
    """Open them as the settings say; neither the database nor an index is touched."""
    settings = settings_of_process()
    if pack is not None:
        chosen = msgspec.structs.replace(settings.face_embedder, pack=pack)
        settings = msgspec.structs.replace(settings, face_embedder=chosen)
    async with session(settings) as container:
        yield MeasuringTools(
            embedder=await container.get(FaceEmbedder),
            calibrations=await container.get(Calibrations),
            clock=await container.get(Clock),
        )


_folder = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
_pack = click.option("--pack", metavar="NAME", help="Another model pack than the one that is set.")
_source = click.option(
    "--source", metavar="TEXT", help="What the photographs are, in words. Default: the folder's name."
)


@click.command()
@_folder
@_pack
@_source
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure there.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Draw the pictures into this folder.")
@click.option("--verbose", is_flag=True, help="Name every photograph that has no face or cannot be read.")
@click.pass_obj
def evaluate(
    open_tools: OpenTools | None,
    *,
    folder: Path,
    pack: str | None,
    source: str | None,
    json_file: Path | None,
    output: Path | None,
    verbose: bool,
) -> None:
    """Measure how well the face model tells people apart.

    On FOLDER/<person>/<photograph>. Compares every photograph with every other, then enrols and searches
    as the service would. Nothing is kept and nothing is changed. Photographs in which no face is found
    count as not recognised. A number that would rest on fewer than 30 false matches is not printed.
    """
    photographs = photographs_in(folder)
    described = source or folder.resolve().name

    async def measure() -> MeasuredEvaluation:
        async with (open_tools or tools_of_process)(pack) as tools:
            command = Evaluate(embedder=tools.embedder, calibrations=tools.calibrations, clock=tools.clock)
            with _progress() as progress:
                return await command(photographs=photographs, source=described, progress=progress)

    measured = run(measure)
    console = Console()
    _print_evaluation(console, measured.report, verbose=verbose)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(measured.report)) + b"\n")
        console.print(f"Figures: {json_file}")
    if output is not None:
        from entrypoints.cli.charts import draw  # noqa: PLC0415 - matplotlib takes half a second; only pictures need it

        output.mkdir(parents=True, exist_ok=True)
        for picture in draw(measured, output):
            console.print(f"Picture: {picture}")


@click.command()
@_folder
@_pack
@_source
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the curve there, as a manifest holds it."
)
@click.option("--write", is_flag=True, help="Use the curve from the next start on.")
@click.option("--verbose", is_flag=True, help="Name every photograph that has no face or cannot be read.")
@click.pass_obj
def calibrate(
    open_tools: OpenTools | None,
    *,
    folder: Path,
    pack: str | None,
    source: str | None,
    output: Path | None,
    write: bool,
    verbose: bool,
) -> None:
    """Measure thresholds on photographs of your own.

    Similarity against error rates, on FOLDER/<person>/<photograph>. Use photographs like those that the
    service will see, of hundreds of people. Without --write nothing is changed; with it, every threshold
    that follows from an error rate moves at the next start.
    """
    photographs = photographs_in(folder)
    described = source or folder.resolve().name

    async def measure() -> NewCalibration:
        async with (open_tools or tools_of_process)(pack) as tools:
            command = Calibrate(embedder=tools.embedder, calibrations=tools.calibrations, clock=tools.clock)
            with _progress() as progress:
                return await command(photographs=photographs, source=described, keep=write, progress=progress)

    measured = run(measure)
    console = Console()
    _print_unused(console, measured.embedded.without_face, measured.embedded.unreadable, verbose=verbose)
    _print_calibration(console, measured)
    if output is not None:
        output.write_text(measured.text, encoding="utf-8")
        console.print(f"Curve: {output}")
    if measured.kept_at is not None:
        console.print(f"In use from the next start on: {measured.kept_at}. To go back, delete that file.")
    elif output is None:
        console.print("Nothing was changed. Use it with --write, or look at it with --output FILE.")


def photographs_in(folder: Path) -> list[Photograph]:
    """Find FOLDER/<person>/<photograph>, by name. Raises `CommandFailed` where there are none."""
    found = [
        Photograph(person=path.relative_to(folder).parts[0], name=str(path.relative_to(folder)), load=path.read_bytes)
        for path in sorted(folder.glob("*/**/*"))
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        raise CommandFailed(
            f"{folder} holds no people: one folder for each is expected, with JPEG, PNG or WebP photographs in it "
            f"({folder}/<person>/<photograph>.jpg)"
        )
    return found


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f} images/s")


@contextmanager
def _progress() -> Iterator[EmbeddingProgress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=remarks, transient=True) as bar:
        task = bar.add_task("Looking at photographs", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if done == total:
                bar.update(task, description="Comparing every pair")

        yield progress


def _print_evaluation(console: Console, report: Evaluation, *, verbose: bool) -> None:
    measured_on = report.evidence
    console.print(
        f"[bold]{report.model}[/bold] on {measured_on.source}: {measured_on.people:,} people, "
        f"{measured_on.images:,} photographs, {measured_on.genuine_pairs:,} pairs of one person, "
        f"{measured_on.impostor_pairs:,} pairs of two."
    )
    _print_unused(console, report.without_face, report.unreadable, verbose=verbose)
    if report.several_faces:
        console.print(f"{_photographs(report.several_faces)} with several faces: the one at the centre was taken.")
    _print_thresholds(console, report)
    if report.equal_error_rate is not None:
        console.print(
            f"Both errors are equally frequent, {report.equal_error_rate.rate:.2%}, "
            f"at similarity {report.equal_error_rate.threshold:.3f}."
        )
    _print_stated(console, report)
    _print_split(console, report.split)
    if report.search is None:
        console.print(
            f"Search (1:N): too few people for a number; {2 * FEWEST_SEARCHES} are needed, "
            f"{measured_on.people:,} are there."
        )
    else:
        _print_search(console, report.search)


def _print_unused(
    console: Console, without_face: Sequence[str], unreadable: Sequence[Unreadable], *, verbose: bool
) -> None:
    if without_face:
        console.print(f"No face found in {_photographs(len(without_face))}: they count as not recognised.")
        for name in without_face if verbose else ():
            console.print(f"  {name}", markup=False, highlight=False)
    if unreadable:
        console.print(f"{_photographs(len(unreadable))} could not be read and count for nothing:")
        shown = unreadable if verbose else unreadable[:_LISTED]
        for each in shown:
            console.print(f"  {each.name}: {each.reason}", markup=False, highlight=False)
        if len(shown) < len(unreadable):
            console.print(f"  and {len(unreadable) - len(shown)} more (--verbose lists them)")


def _print_thresholds(console: Console, report: Evaluation) -> None:
    if not report.evidence.genuine_pairs:
        console.print("Nobody has two photographs, so it cannot be said how often people are recognised.")
    if report.operating_points:
        table = Table(title="Verification (1:1): what fewer false matches cost", title_justify="left")
        table.add_column("one false match in")
        table.add_column("similarity from", justify="right")
        table.add_column("how sure (95 %)", justify="right")
        table.add_column("rests on", justify="right")
        table.add_column("recognised, each pair the same", justify="right")
        table.add_column("each person the same (95 %)", justify="right")
        for point in report.operating_points:
            table.add_row(*_threshold_row(point))
        console.print(table)
    for target in FMR_TARGETS:
        needed = FEWEST_IMPOSTOR_PAIRS / target
        if report.evidence.impostor_pairs < needed:
            console.print(
                f"One false match in {1 / target:,.0f}: too few photographs for a number. It would rest on fewer than "
                f"{FEWEST_IMPOSTOR_PAIRS} false matches; {needed:,.0f} pairs of different people are needed, "
                f"{report.evidence.impostor_pairs:,} are there."
            )


def _threshold_row(point: OperatingPoint) -> tuple[str, ...]:
    recognised = _recognised(
        point.true_accept_rate_by_person, point.true_accept_rate_by_person_low, point.true_accept_rate_by_person_high
    )
    return (
        f"{1 / point.target:,.0f} comparisons",
        f"{point.threshold:.4f}",
        f"{point.threshold_low:.4f} to {point.threshold_high:.4f}",
        f"{point.false_matches:,} false matches",
        f"{point.true_accept_rate:.2%}",
        recognised,
    )


def _print_stated(console: Console, report: Evaluation) -> None:
    if report.calibrated_on is None:
        console.print(
            f"{report.model} has no calibration, so the service has no thresholds of its own: "
            "facepass calibrate FOLDER --write"
        )
        return
    table = Table(
        title=f"Thresholds in use (measured on {report.calibrated_on.source}), tried on these photographs",
        title_justify="left",
    )
    for column in (
        "states one false match in",
        "similarity from",
        "here it is one in",
        "recognised, each person the same (95 %)",
    ):
        table.add_column(column, justify="right")
    for stated in report.stated_thresholds:
        table.add_row(*_stated_row(stated))
    console.print(table)


def _stated_row(stated: StatedThreshold) -> tuple[str, ...]:
    here = f"fewer than {FEWEST_IMPOSTOR_PAIRS} false matches: no number"
    if stated.false_match_rate is not None:
        here = f"{1 / stated.false_match_rate:,.0f} ({stated.false_match_rate / stated.target:.2f} of what it states)"
    recognised = _recognised(
        stated.true_accept_rate_by_person,
        stated.true_accept_rate_by_person_low,
        stated.true_accept_rate_by_person_high,
    )
    return (
        f"{1 / stated.target:,.0f}",
        f"{stated.threshold:.4f}",
        here,
        recognised,
    )


def _print_split(console: Console, split: Sequence[SplitResult]) -> None:
    for result in split:
        console.print(
            f"Set on half of these people for one false match in {1 / result.target:,.0f}, a threshold gave "
            f"{min(result.factors):.2f} to {max(result.factors):.2f} times that on the other half "
            f"({len(result.factors)} trials)."
        )


def _print_search(console: Console, trial: SearchTrial) -> None:
    console.print(
        f"[bold]Search (1:N)[/bold]: {trial.strangers:,} strangers and {trial.enrolled_searches:,} enrolled people "
        f"looked for among {trial.gallery:,} people with one photograph each, in {trial.draws} random draws."
    )
    if trial.rank_one is not None:
        console.print(f"The nearest person is the right one for {_shares(trial.rank_one)} of the enrolled.")
    table = Table(title="Strangers taken for somebody (FPIR), enrolled people not found (FNIR)", title_justify="left")
    columns = ("target", "service's threshold", "FPIR with it", "FNIR with it", "exact threshold", "FNIR with it")
    for column in columns:
        table.add_column(column, justify="right")
    for point in trial.points:
        table.add_row(*_search_row(point))
    console.print(table)


def _search_row(point: SearchPoint) -> tuple[str, ...]:
    return (
        f"{point.target:.0%}",
        "not calibrated so far" if point.service_threshold is None else f"{point.service_threshold:.4f}",
        "" if point.service_fpir is None else _shares(point.service_fpir),
        "" if point.service_fnir is None else _shares(point.service_fnir),
        "too few searches" if point.measured_threshold is None else f"{point.measured_threshold:.4f}",
        "" if point.measured_fnir is None else f"{point.measured_fnir:.1%}",
    )


def _print_calibration(console: Console, measured: NewCalibration) -> None:
    after, before = measured.calibration, measured.before
    measured_on = after.evidence
    console.print(
        f"Measured on {measured_on.source}: {measured_on.people:,} people, {measured_on.images:,} photographs, "
        f"{measured_on.impostor_pairs:,} pairs of different people. It reaches down to one false match in "
        f"{1 / after.smallest_rate:,.0f} comparisons."
    )
    table = Table(title="Similarity from which two faces match", title_justify="left")
    table.add_column("one false match in", justify="right")
    table.add_column("so far: none in use" if before is None else f"so far ({before.evidence.source})", justify="right")
    table.add_column("now", justify="right")
    table.add_column("the rate, 95 %: one in", justify="right")
    table.add_column("people not recognised", justify="right")
    for target in FMR_TARGETS:
        table.add_row(*_calibration_row(target, before, after))
    console.print(table)


def _calibration_row(target: float, before: Calibration | None, after: Calibration) -> tuple[str, ...]:
    old = None if before is None else before.threshold_at(target)
    new = after.threshold_at(target)
    if new is None:
        return f"{1 / target:,.0f}", "" if old is None else f"{old.value:.4f}", "too few photographs", "", ""
    sure = [f"{1 / rate:,.0f}" if rate > 0 else "any" for rate in (new.false_match_rate_high, new.false_match_rate_low)]
    return (
        f"{1 / target:,.0f}",
        "" if old is None else f"{old.value:.4f}",
        f"{new.value:.4f}" + ("" if old is None else f" ({new.value - old.value:+.4f})"),
        " to ".join(sure),
        f"{after.false_non_match_rate_at(new.value):.2%}",
    )


def _recognised(rate: float | None, low: float | None, high: float | None) -> str:
    if rate is None or low is None or high is None:
        return "nobody has two photographs"
    return f"{rate:.2%} ({low:.1%} to {high:.1%})"


def _photographs(count: int) -> str:
    return "1 photograph" if count == 1 else f"{count:,} photographs"


def _shares(spread: Spread) -> str:
    return f"{spread.mean:.1%} ({spread.least:.1%} to {spread.most:.1%})"
