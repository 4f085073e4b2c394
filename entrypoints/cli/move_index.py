"""`facepass index migrate` and `facepass index status`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self

import click
from dishka import Scope
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from application.ports.index_states import IndexName, IndexState
from application.use_cases.upkeep.compare_indexes import Compared
from application.use_cases.upkeep.drop_index import DropIndex, Dropped
from application.use_cases.upkeep.move_index import Moved, MoveIndex, Stage
from application.use_cases.upkeep.show_indexes import ShowIndexes, ShownIndexes
from application.use_cases.upkeep.verify_index import IndexReport
from domain.embedding import SpaceId
from domain.errors import FacepassError
from domain.gallery import Gallery, GalleryId
from entrypoints.cli import options
from entrypoints.cli.facts import facts
from entrypoints.cli.session import (
    FAILED,
    CommandFailed,
    console,
    print_json,
    results,
    run,
    session,
    settings_of_process,
)
from entrypoints.settings import PREFIX, Settings

_STAGES = {
    Stage.DECLARE: "Waiting until every process writes both",
    Stage.FILL: "Filling",
    Stage.COMPARE: "Comparing with the record, then decisions",
    Stage.SWITCH: "Switching",
}


@click.command(epilog="Exit status: 0 where the index answers searches (with --drop: is left), 1 where it does not.")
@click.option("--to", metavar="NAME", help="The index that is to answer searches, as the settings call it.")
@click.option("--drop", metavar="NAME", help="The index to write no more, and to empty.")
@click.option("--offline", is_flag=True, help="Go on where the index that answers is not set up here: no way back.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@click.pass_context
def migrate(
    context: click.Context, *, to: str | None, drop: str | None, offline: bool, yes: bool, as_json: bool
) -> None:
    """Move to another vector index while the service goes on.

    First set FACEPASS_NEXT_VECTOR_INDEX__* on every node and restart one after the other. Then, on any machine with
    the same settings, --to NAME fills that index, compares it, and lets it answer searches. The same with the old
    one's name takes it back at once, as long as --drop has not ended it. Stopped half way it goes on where it was when
    it is called again; --drop NAME gives it up.
    """
    if (to is None) == (drop is None):
        raise click.UsageError("say either --to or --drop")
    settings = settings_of_process()
    if to is not None:
        _require_set_up(settings, to)
        _ask(f"Nodes that have no settings for '{to}' will answer no searches once it took over. Go on?", yes=yes)
        moved = run(_move, settings, IndexName(to), offline=offline)
        if as_json:
            print_json(_moved(moved))
        else:
            _print(moved)
        if not moved.done:
            context.exit(FAILED)
    elif drop is not None:
        _ask(f"'{drop}' will be written no more, and emptied. Go on?", yes=yes)
        dropped = run(_drop, settings, IndexName(drop))
        if as_json:
            print_json(_dropped(drop, dropped))
        else:
            _print_dropped(drop, dropped)


@click.command()
@options.as_json
def status(*, as_json: bool) -> None:
    """Show which vector index answers searches, and which is written beside it."""
    shown = run(_status, settings_of_process())
    if as_json:
        print_json({**_state(shown.state), "set_up": shown.set_up} | _counts(shown))
        return
    state = shown.state
    rows = [("answers searches", escape(state.serving)), ("since", f"{state.changed_at:%Y-%m-%d %H:%M:%S} UTC")]
    if state.beside is not None:
        how = "filled and kept in line" if state.filled else f"{shown.walked:,} references filled so far"
        rows.append(("written beside it", f"{escape(state.beside)}: {how}"))
    rows.append(("set up here", escape(", ".join(shown.set_up))))
    rows.append(("references", f"{shown.references:,}"))
    rows.append(("not taken yet", f"{shown.waiting:,}, tried again by the service"))
    results.print(facts(*rows))


async def _move(settings: Settings, to: IndexName, *, offline: bool) -> Moved:
    async with session(settings) as container, container(scope=Scope.REQUEST) as unit:
        if not offline:
            await _require_both(await container.get(ShowIndexes))
        move = await unit.get(MoveIndex)
        try:
            with _Stages() as stages:
                return await move(to=to, told=stages)
        except (FacepassError, asyncio.CancelledError):
            console.print("What was done is kept, and the service goes on as before.")
            console.print(f"To go on:   facepass index migrate --to {to}", markup=False)
            console.print(f"To give up: facepass index migrate --drop {to}", markup=False)
            raise


async def _drop(settings: Settings, name: IndexName) -> Dropped:
    async with session(settings) as container, container(scope=Scope.REQUEST) as unit:
        drop = await unit.get(DropIndex)
        with console.status(f"Leaving {escape(name)}"):
            return await drop(name=name)


async def _status(settings: Settings) -> ShownIndexes:
    async with session(settings) as container:
        return await (await container.get(ShowIndexes))()


def _require_set_up(settings: Settings, name: str) -> None:
    """Raise `CommandFailed` that says what to set, and where."""
    if name in (settings.vector_index.called, settings.next_vector_index.called):
        return
    raise CommandFailed(
        f"no settings for an index named '{name}' are here. On every node, set FACEPASS_NEXT_VECTOR_INDEX__BACKEND"
        f" (and FACEPASS_NEXT_VECTOR_INDEX__NAME={name}, where its backend is called otherwise) and what that backend"
        " needs, restart them one after the other, and call this again with the same settings"
    )


async def _require_both(show: ShowIndexes) -> None:
    """Raise `CommandFailed` where the index that answers is not set up here: nothing could be compared."""
    shown = await show()
    if shown.state.serving in shown.set_up or not shown.references:
        return
    serving = shown.state.serving
    raise CommandFailed(
        f"the index that answers is called '{serving}', and none of that name is set up here. Where it is one of these"
        f" under another name, call it so: FACEPASS_VECTOR_INDEX__NAME={serving}. Where no node uses it any more,"
        " --offline fills the new one from the record alone, compares no decisions and cannot be taken back"
    )


def _ask(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)


class _Stages:
    """A bar for each stage that counts, a line for each that waits."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console)
        self._stage: Stage | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        if stage is not self._stage:
            if self._stage is not None:
                self._bar.update(self._task, completed=total)
            self._stage = stage
            self._task = self._bar.add_task(_STAGES[stage], total=total)
        self._bar.update(self._task, completed=done)


def _print(moved: Moved) -> None:
    state, compared = moved.state, moved.compared
    if compared is not None:
        results.print(_table(moved, compared))
        for reference, what in _differences(compared):
            results.print(f"  {reference}  {what}", markup=False)
    if moved.unserved:
        _print_unserved(moved)
        return
    if not moved.done:
        results.print(f"'{state.serving}' goes on answering: '{state.beside}' does not agree", markup=False)
        results.print(f"To try again: facepass index migrate --to {state.beside}", markup=False)
        return
    results.print(f"'{state.serving}' answers searches", markup=False)
    if state.beside is not None:
        results.print(f"To take it back: facepass index migrate --to {state.beside}", markup=False)
        results.print(f"To end the old:  facepass index migrate --drop {state.beside}", markup=False)


def _print_unserved(moved: Moved) -> None:
    results.print(f"'{moved.state.serving}' goes on answering: its models are not all served here", markup=False)
    for space, gallery in _each(moved.unserved):
        results.print(f"  {gallery.name} ({gallery.id}): {space}", markup=False)
    results.print(
        "The new index cannot be filled with their faces here, and searches for them would find nobody.\n"
        f"Call this again with the nodes' settings: {PREFIX}FACE_EMBEDDER__* and {PREFIX}NEXT_FACE_EMBEDDER__*.\n"
        "A gallery whose model no node serves any more has to be served again for this, moved or deleted.",
        markup=False,
    )


def _print_dropped(name: str, dropped: Dropped) -> None:
    if not dropped.set_up:
        said = "is written no more; what it holds is there still, since no settings for it are here"
    elif dropped.emptied:
        said = "is written no more, and what it held is gone"
    else:
        said = "is written no more, and emptied but for what follows"
    results.print(f"'{name}' {said}", markup=False)
    for space in dropped.cleared:
        results.print(
            f"  {space}: the galleries that there are were cleared one by one, for this backend cannot be emptied at"
            " once; what it holds of deleted galleries is there still",
            markup=False,
        )
    for space, gallery in _each(dropped.unserved) if dropped.set_up else ():
        results.print(
            f"  {gallery.name} ({gallery.id}): its faces of {space}, a model that this command has no settings for",
            markup=False,
        )


def _each(unserved: Mapping[SpaceId, Sequence[Gallery]]) -> Sequence[tuple[SpaceId, Gallery]]:
    return [(space, gallery) for space, galleries in unserved.items() for gallery in galleries]


def _table(moved: Moved, compared: Compared) -> Table:
    def total(what: str) -> str:
        return f"{sum(len(getattr(report, what)) for report in compared.galleries.values()):,}"

    rows = [
        ("references", f"{moved.references:,}"),
        ("missing at first", total("missing")),
        ("superfluous at first", total("superfluous")),
        ("different at first", total("different")),
        ("mended", f"{compared.mended:,}"),
        ("still differing", f"{len(compared.lasting):,}"),
        ("damaged in the record", total("damaged")),
    ]
    decisions = compared.decisions
    if decisions is None:
        rows.append(("decisions", "not compared: the index that answered is not set up here"))
    else:
        alike = decisions.probes - len(decisions.differing)
        rows.append(("same decisions", f"{alike:,} of {decisions.probes:,} probes"))
    return facts(*rows)


def _differences(compared: Compared) -> Sequence[tuple[object, str]]:
    decisions = () if compared.decisions is None else compared.decisions.differing
    damaged = [one for report in compared.galleries.values() for one in report.damaged]
    return [
        *((one, "differs in spite of being written anew") for one in compared.lasting),
        *((one, "as a probe leads to other decisions") for one in decisions),
        *((one, "has a template that does not open: no index can be given it") for one in damaged),
    ]


def _moved(moved: Moved) -> dict[str, object]:
    compared = moved.compared
    return {
        **_state(moved.state),
        "done": moved.done,
        "references": moved.references,
        "compared": None
        if compared is None
        else {
            "galleries": [_report(*place, report) for place, report in compared.galleries.items()],
            "mended": compared.mended,
            "lasting": compared.lasting,
            "decisions": compared.decisions,
        },
        "unserved": _unserved(moved.unserved),
    }


def _dropped(name: str, dropped: Dropped) -> dict[str, object]:
    return {
        "dropped": name,
        "emptied": dropped.emptied,
        "set_up": dropped.set_up,
        "cleared": dropped.cleared,
        "unserved": _unserved(dropped.unserved),
    }


def _report(gallery: GalleryId, space: SpaceId, report: IndexReport) -> dict[str, object]:
    return {
        "gallery": gallery,
        "space": space,
        "references": report.references,
        "missing": report.missing,
        "superfluous": report.superfluous,
        "different": report.different,
        "damaged": report.damaged,
    }


def _unserved(unserved: Mapping[SpaceId, Sequence[Gallery]]) -> Sequence[dict[str, object]]:
    return [
        {"workspace": gallery.workspace, "gallery": gallery.id, "name": gallery.name, "space": space}
        for space, gallery in _each(unserved)
    ]


def _state(state: IndexState) -> dict[str, object]:
    return {
        "serving": state.serving,
        "beside": state.beside,
        "filled": state.filled,
        "changed_at": state.changed_at,
    }


def _counts(shown: ShownIndexes) -> dict[str, object]:
    return {"references": shown.references, "walked": shown.walked, "waiting": shown.waiting}
