"""`facepass demo`: the whole product on a throw-away service, with real faces."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

import click
import platformdirs
from rich import box
from rich.markup import escape
from rich.table import Table

from application.ports.model_packs import ModelPacks
from domain.decision import Outcome
from domain.face import Box
from entrypoints.cli import options
from entrypoints.cli.demo.photographs import MARGINS, Samples, cut_out, read_samples
from entrypoints.cli.demo.private_server import Answer, Refused, Service, throw_away_service
from entrypoints.cli.demo.questions import Asked, Cast, ask_all, ask_group, name_of
from entrypoints.cli.pictures import Marked, save_picture
from entrypoints.cli.session import (
    FAILED,
    INTERRUPTED,
    CommandFailed,
    PullProgress,
    console,
    print_json,
    results,
    run,
    session,
    settings_of_process,
)
from entrypoints.cli.words import OUTCOMES, STYLES
from entrypoints.settings import Settings

_PACK = "open"
_PICTURE = "group.png"


@click.command(epilog="Exit status: 0 only where every answer was right.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where the picture goes. Default: the user's cache folder.",
)
@click.option("--serve", "stay", is_flag=True, help="Leave the service running afterwards, to try it, until Ctrl-C.")
@options.as_json
@click.pass_context
def demo(context: click.Context, *, output: Path | None, stay: bool, as_json: bool) -> None:
    """See it work on real faces.

    Enrols, searches and verifies people on a throw-away service and shows what it decides. Starts the real
    server on a database of its own, calls it over HTTP, and removes it again. The photographs are those that
    the packages of 'facepass[demo]' carry.
    """
    samples = read_samples()
    settings = settings_of_process()
    folder = output or platformdirs.user_cache_path("facepass", appauthor=False) / "demo"
    try:
        with _sigterm_as_interrupt():
            right = _show(samples, settings, folder, stay=stay, as_json=as_json)
    except KeyboardInterrupt:
        console.print("interrupted; everything was removed")
        sys.exit(INTERRUPTED)
    if not right:
        context.exit(FAILED)


def _show(samples: Samples, settings: Settings, folder: Path, *, stay: bool, as_json: bool) -> bool:
    _pull(settings)
    with _Steps() as step:
        step("Starting a database and the service")
        with throw_away_service(settings) as (service, process):
            step("Making a workspace and an API key")
            service.bootstrap()
            step("Finding the people in the photographs")
            group = _people(service, samples)
            cast = _enrol(service, samples, group, step)
            step("Asking")
            asked = list(ask_all(service, cast))
            seen = service.search(samples.group, faces="all")
            asked.append(ask_group(seen, list(group), cast))
            step("Drawing")
            picture = _draw(samples, seen, folder)
            step.done()
            if as_json:
                print_json({"right": all(one.right for one in asked), "picture": str(picture), "asked": asked})
            else:
                _print(asked, picture, cast)
            if stay:
                _stay(service, process)
            step("Removing everything")
    return all(one.right for one in asked)


def _pull(settings: Settings) -> None:
    async def pull() -> None:
        async with session(settings) as container:
            packs = await container.get(ModelPacks)
            with PullProgress() as progress:
                await asyncio.to_thread(packs.pull, _PACK, progress)

    run(pull)


def _people(service: Service, samples: Samples) -> dict[str, list[bytes]]:
    """Cut the people of the group out, numbered from left to right."""
    found = [_box(face) for face in service.detect(samples.group)["faces"]]
    if len(found) < 2:  # noqa: PLR2004 - one to enrol, one to leave out
        raise CommandFailed(f"{len(found)} faces were found in the photograph of a group")
    return {
        f"person-{number}": [cut_out(samples.group, box, margin) for margin in MARGINS]
        for number, box in enumerate(sorted(found, key=lambda box: box.left), 1)
    }


def _enrol(service: Service, samples: Samples, group: dict[str, list[bytes]], step: "_Steps") -> Cast:
    """Enrol everybody but the last of the group, who stays a stranger."""
    *known, stranger = group
    photographs = {name: group[name] for name in known} | {name: [image] for name, image in samples.single.items()}
    refused: dict[str, bytes] = {}
    accepted = 0
    for name, images in photographs.items():
        step(f"Enrolling {name}")
        try:
            answer = service.enrol(name, images)
        except Refused as error:
            refused[name] = images[0]
            step.remark(f"{name} was refused: {error.message}")
            continue
        accepted += len(answer["accepted"])
        for one in answer["rejected"]:
            step.remark(f"one of {len(images)} photographs of {name} was refused: {one['detail']}")
    return Cast(
        enrolled={name: images[0] for name, images in photographs.items() if name not in refused},
        stranger=(stranger, group[stranger][0]),
        refused=refused,
        photographs=accepted,
    )


def _draw(samples: Samples, seen: Answer, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"the folder for the picture cannot be made: {error}") from error
    picture = folder / _PICTURE
    save_picture(samples.group, [_marked(face) for face in seen["faces"]], picture)
    return picture


def _marked(face: Answer) -> Marked:
    name = name_of(face)
    if name is None:
        return Marked(box=_box(face), title="not enrolled", tone="plain")
    return Marked(
        box=_box(face), title=name, lines=(f"similarity {face['matches'][0]['similarity']:.3f}",), tone="good"
    )


def _box(face: Answer) -> Box:
    found = face["box"]
    left, top = found["left"], found["top"]
    return Box(left, top, left + found["width"], top + found["height"])


def _print(asked: Sequence[Asked], picture: Path, cast: Cast) -> None:
    results.print(
        f"{len(cast.enrolled)} people enrolled from {cast.photographs} photographs; "
        f"{cast.stranger[0]} was left out, to be a stranger.\n"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("photograph of", "done to it", "question", "answer"):
        table.add_column(column)
    for column in ("similar", "from"):
        table.add_column(column, justify="right")
    table.add_column("decision")
    table.add_column("ms", justify="right")
    table.add_column("")
    for before, one in zip([None, *asked], asked, strict=False):
        table.add_row(
            "" if before is not None and before.shows == one.shows else one.shows,
            one.change,
            one.question,
            one.answer,
            "" if one.similarity is None else f"{one.similarity:.3f}",
            "" if one.threshold is None else f"{one.threshold:.3f}",
            f"[{STYLES[Outcome(one.outcome)]}]{OUTCOMES[Outcome(one.outcome)]}[/]" if one.outcome else "",
            f"{one.took_ms:.0f}",
            "[green]right[/]" if one.right else "[bold red]wrong[/]",
        )
    results.print(table)
    results.print("similar: cosine of the two faces; from: the similarity from which it is a match.", style="dim")
    right = sum(one.right for one in asked)
    style = "green" if right == len(asked) else "bold red"
    results.print(f"[{style}]{right} of {len(asked)} answers are right.[/]")
    _print_alike(asked)
    results.print(
        "These are changed copies of the photographs that were enrolled, which is easier than new photographs of the "
        "same people. What to expect of those: facepass models show open"
    )
    results.print(f"Picture: {picture}", markup=False, soft_wrap=True)


def _print_alike(asked: Sequence[Asked]) -> None:
    """Say who was proposed beside the right person: the model cannot tell these two apart."""
    pairs = {tuple(sorted((one.shows, other))): similarity for one in asked for other, similarity in one.also.items()}
    for (one, other), similarity in pairs.items():
        results.print(
            f"[yellow]{one} and {other} look so alike to this model ({similarity:.3f}) that each alone "
            "would be taken for the other[/]: a search names the better one, and its margin says by how much."
        )


def _stay(service: Service, process: "subprocess.Popen[str]") -> None:
    results.print(f"\nThe service stays up until Ctrl-C. API pages: [bold]{service.address}/docs[/]")
    results.print(f"Key, for the header X-API-Key: [bold]{service.key}[/]")
    try:
        process.wait()
    except KeyboardInterrupt:
        return
    raise CommandFailed("the service has ended by itself")


class _Steps:
    """A spinner that says what is being done, and a line with its time when it is done."""

    def __init__(self) -> None:
        self._spinner = console.status("")
        self._doing: str | None = None
        self._since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.done()
        self._spinner.stop()

    def __call__(self, doing: str) -> None:
        self.done()
        self._doing, self._since = doing, time.monotonic()
        self._spinner.update(doing)
        self._spinner.start()

    def remark(self, text: str) -> None:
        """Say something of the step."""
        console.print(f"[yellow]note[/] {escape(text)}")

    def done(self) -> None:
        """End the step that is being done, if any."""
        if self._doing is not None:
            console.print(f"[green]done[/] {self._doing} [dim]{time.monotonic() - self._since:.1f} s[/]")
        self._doing = None
        self._spinner.stop()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let a polite kill remove everything, as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
