"""`facepass enrol`: a folder of people, several at once, and again where it stopped."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click
import msgspec
from dishka import AsyncContainer, Scope
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from application.ports.errors import PortBusy
from application.use_cases.galleries.get_gallery import GetGallery
from application.use_cases.people.list_people import ListPeople
from application.use_cases.references.enrol_references import Enrolled, EnrolReferences, SentImage
from application.use_cases.references.list_references import ListReferences
from domain.calibration import Calibration
from domain.decision import capacity
from domain.enrolment import Rejection
from domain.errors import Conflict, InvalidRequest, NothingAccepted
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId
from entrypoints.cli import options
from entrypoints.cli.places import workspace_named
from entrypoints.cli.session import FAILED, CommandFailed, console, print_json, results, run, session
from entrypoints.cli.words import capacity_text
from entrypoints.http.names import gallery_named
from entrypoints.http.shapes import CapacityShape

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

_IMAGES_PER_CALL = 8
"""Images of one person that are committed together: what an interruption loses is done again."""

_PEOPLE_AT_ONCE = min(8, (os.cpu_count() or 1) + 1)
"""One more than there are cores, so that none of them waits for a file or the database."""

_PAGE = 1000

_NOT_READABLE = "not_readable"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonFolder:
    """A person, and the images that are to be enrolled: paths by the name that the record keeps."""

    external_id: str
    images: dict[str, Path]


class RefusedFile(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was not enrolled."""

    person: str
    file: str
    code: str
    detail: str


class EnrolmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a folder, as `--json` prints it."""

    people: int
    images: int
    enrolled: int
    enrolled_before: int
    refused: dict[str, int]
    """By code."""
    not_searchable: int
    seconds: float
    capacity: CapacityShape


@dataclass(slots=True)
class _Tally:
    enrolled: int = 0
    not_searchable: int = 0
    refused: list[RefusedFile] = field(default_factory=list)


@click.command(epilog="Exit status: 0, or 1 where nothing is enrolled.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.gallery
@options.workspace
@click.option("--verbose", is_flag=True, help="Name every image that was refused.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what became of each image there, a line of JSON each.",
)
@options.as_json
@click.pass_context
def enrol(
    context: click.Context,
    *,
    folder: Path,
    gallery: str,
    workspace: str,
    verbose: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Enrol a folder of people.

    FOLDER holds a folder for each person with their images in it; its name becomes the person's external_id.
    Each image must show one face that is good enough for the gallery; what is refused is listed with its
    reason. Run again, it enrols what is new: images are known by person and file name.
    """
    people = people_in(folder)
    try:
        opened = nullcontext(None) if report is None else report.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        raise CommandFailed(f"the report cannot be written: {error}") from error
    with opened as lines:
        tally, made = run(_enrol_all, people, workspace=workspace, gallery=gallery, lines=lines)
    if as_json:
        print_json(made)
    else:
        _print(tally, made, verbose=verbose)
    if not made.enrolled and not made.enrolled_before:
        context.exit(FAILED)


def people_in(folder: Path) -> list[PersonFolder]:
    """Find FOLDER/<person>/<image>, by name. Raises `CommandFailed` that explains the layout where there are none."""
    layout = f"one folder for each person is expected, with their images in it: {folder}/<person>/<image>.jpg"
    loose = [path for path in folder.iterdir() if _is_image(path)]
    people = [
        PersonFolder(external_id=person.name, images=images)
        for person in sorted(folder.iterdir())
        if person.is_dir() and not person.name.startswith(".") and (images := _images_in(person))
    ]
    if loose and not people:
        raise CommandFailed(f"{folder} holds images and no people; {layout}")
    if not people:
        raise CommandFailed(f"{folder} holds no JPEG, PNG or WebP images; {layout}")
    if loose:
        console.print(
            f"[yellow]{len(loose)} images directly in {escape(str(folder))} belong to nobody and are left out[/]; "
            + escape(layout)
        )
    return people


def _images_in(person: Path) -> dict[str, Path]:
    return {str(path.relative_to(person)): path for path in sorted(person.rglob("*")) if _is_image(path)}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


async def _enrol_all(
    people: Sequence[PersonFolder], *, workspace: str, gallery: str, lines: IO[str] | None
) -> tuple[_Tally, EnrolmentReport]:
    async with session() as container:
        place = await workspace_named(container, workspace)
        shown = await (await container.get(GetGallery))(workspace=place, gallery=gallery_named(gallery))
        known = await _known(container, place, shown.gallery.id)
        images = sum(len(person.images) for person in people)
        waiting = [left for person in people if (left := _without(person, known)).images]
        before = images - sum(len(person.images) for person in waiting)
        if before:
            console.print(f"{before:,} of {images:,} images were enrolled before.")
        tally, began = _Tally(), time.perf_counter()
        enrolment = _Enrolment(container, place, shown.gallery.id, tally, lines)
        await enrolment.run(waiting)
        seconds = time.perf_counter() - began
        # Counted on from here: the record's own number may be a second old.
        expected = capacity(
            await container.get(Calibration),
            policy=shown.gallery.policy,
            references=shown.references + tally.enrolled,
        )
        return tally, EnrolmentReport(
            people=len(people),
            images=images,
            enrolled=tally.enrolled,
            enrolled_before=before,
            refused=dict(Counter(one.code for one in tally.refused).most_common()),
            not_searchable=tally.not_searchable,
            seconds=round(seconds, 2),
            capacity=CapacityShape(
                references=expected.references, expected_fnir=expected.expected_fnir, outgrown=expected.outgrown
            ),
        )


async def _known(container: AsyncContainer, workspace: WorkspaceId, gallery: GalleryId) -> set[tuple[str, str]]:
    """Return (external_id, file name) of every reference."""
    names: dict[PersonId, str] = {}
    known: set[tuple[str, str]] = set()
    async with container(scope=Scope.REQUEST) as unit:
        list_people, list_references = await unit.get(ListPeople), await unit.get(ListReferences)
        after = None
        while True:
            people = await list_people(workspace=workspace, gallery=gallery, limit=_PAGE, after=after)
            names |= {one.id: one.external_id for one in people.items if one.external_id is not None}
            if (after := people.next_after) is None:
                break
        while True:
            page = await list_references(workspace=workspace, gallery=gallery, limit=_PAGE, after=after)
            known |= {(names[one.person], one.filename) for one in page.items if one.filename and one.person in names}
            if (after := page.next_after) is None:
                return known


def _without(person: PersonFolder, known: set[tuple[str, str]]) -> PersonFolder:
    left = {name: path for name, path in person.images.items() if (person.external_id, name) not in known}
    return PersonFolder(external_id=person.external_id, images=left)


@dataclass(frozen=True, slots=True)
class _Enrolment:
    """One run over a folder."""

    container: AsyncContainer
    workspace: WorkspaceId
    gallery: GalleryId
    tally: _Tally
    lines: IO[str] | None

    async def run(self, people: Sequence[PersonFolder]) -> None:
        """Enrol several people at a time. An error that is no image's own ends it; what was enrolled stays."""
        total = sum(len(person.images) for person in people)
        columns = (TextColumn("Enrolling"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not total) as bar:
            task = bar.add_task("Enrolling", total=total)
            waiting = iter(people)
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(_PEOPLE_AT_ONCE):
                        workers.create_task(self._work(waiting, bar, task))
            except ExceptionGroup as group:
                self._say_how_to_go_on()
                raise group.exceptions[0] from group
            except asyncio.CancelledError:
                self._say_how_to_go_on()
                raise

    def _say_how_to_go_on(self) -> None:
        console.print(
            f"Stopped: {self.tally.enrolled:,} images were enrolled and stay. "
            "The same command goes on where it stopped.",
            soft_wrap=True,
        )

    async def _work(self, waiting: Iterator[PersonFolder], bar: Progress, task: TaskID) -> None:
        for person in waiting:
            names = list(person.images)
            for begin in range(0, len(names), _IMAGES_PER_CALL):
                chunk = names[begin : begin + _IMAGES_PER_CALL]
                await self._enrol(person, chunk)
                bar.advance(task, len(chunk))

    async def _enrol(self, person: PersonFolder, names: Sequence[str]) -> None:
        images = []
        for name in names:
            try:
                images.append(SentImage(content=await asyncio.to_thread(person.images[name].read_bytes), filename=name))
            except OSError as error:
                self._refuse(person, name, _NOT_READABLE, str(error))
        if not images:
            return
        try:
            enrolled = await self._call(person, images)
        except NothingAccepted as error:
            for one in error.rejected:
                if isinstance(one, Rejection):
                    self._refuse(person, images[one.index].filename, one.code, one.detail)
        except (InvalidRequest, Conflict) as error:
            for image in images:
                self._refuse(person, image.filename, error.code, error.message)
        else:
            self._keep(person, images, enrolled)

    async def _call(self, person: PersonFolder, images: Sequence[SentImage]) -> Enrolled:
        """Enrol in a unit of work of its own; where the model is busy with others' images, wait for it."""
        while True:
            try:
                async with self.container(scope=Scope.REQUEST) as unit:
                    enrol_references = await unit.get(EnrolReferences)
                    return await enrol_references(
                        workspace=self.workspace,
                        gallery=self.gallery,
                        images=images,
                        external_id=person.external_id,
                    )
            except PortBusy as busy:
                await asyncio.sleep(busy.retry_after)

    def _keep(self, person: PersonFolder, images: Sequence[SentImage], enrolled: Enrolled) -> None:
        for reference in enrolled.accepted:
            self.tally.enrolled += 1
            self.tally.not_searchable += not reference.searchable
            self._write(
                {"person": person.external_id, "file": reference.filename, "reference_id": str(reference.id)},
                status="enrolled",
            )
        for one in enrolled.rejected:
            self._refuse(person, images[one.index].filename, one.code, one.detail)

    def _refuse(self, person: PersonFolder, name: str | None, code: str, detail: str) -> None:
        refused = RefusedFile(person=person.external_id, file=name or "", code=code, detail=detail)
        self.tally.refused.append(refused)
        self._write(msgspec.to_builtins(refused), status="refused")

    def _write(self, line: dict[str, object], *, status: str) -> None:
        if self.lines is not None:
            self.lines.write(msgspec.json.encode({"status": status, **line}).decode() + "\n")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f} images/s")


def _print(tally: _Tally, made: EnrolmentReport, *, verbose: bool) -> None:
    speed = f", {made.enrolled / made.seconds:.0f} images/s" if made.enrolled and made.seconds else ""
    results.print(
        f"[bold]{made.enrolled:,}[/] of {made.images:,} images of {made.people:,} people enrolled"
        f" in {made.seconds:.1f} s{speed}"
        + (f"; {made.enrolled_before:,} were enrolled before." if made.enrolled_before else ".")
    )
    if tally.refused:
        _print_refused(tally.refused, verbose=verbose)
    if made.not_searchable:
        results.print(
            f"[yellow]{made.not_searchable:,} cannot be searched yet[/]: the index could not be reached. A running "
            "service mends that by itself; so does: facepass index verify --repair"
        )
    results.print(capacity_text(made.capacity))


def _print_refused(refused: Sequence[RefusedFile], *, verbose: bool) -> None:
    by_code: dict[str, list[RefusedFile]] = {}
    for one in refused:
        by_code.setdefault(one.code, []).append(one)
    table = Table("refused because", "images", "for example")
    for code, files in sorted(by_code.items(), key=lambda item: -len(item[1])):
        example = files[0]
        table.add_row(
            code.replace("_", " "), f"{len(files):,}", escape(f"{example.person}/{example.file}: {example.detail}")
        )
    results.print(table)
    if verbose:
        for one in refused:
            results.print(f"  {one.person}/{one.file}: {one.code}", markup=False)
    else:
        results.print("--verbose names them all; --report FILE writes what became of each image.")
