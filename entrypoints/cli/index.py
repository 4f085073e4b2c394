"""`facepass index`."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import click
from dishka import AsyncContainer, Scope
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from application.ports.index_states import IndexName
from application.use_cases.galleries.get_gallery import GetGallery
from application.use_cases.galleries.list_galleries import ListGalleries
from application.use_cases.upkeep.mend_index import MendIndex
from application.use_cases.upkeep.rebuild_index import RebuildIndex, Rebuilt
from application.use_cases.upkeep.rekey_gallery import RekeyGallery
from application.use_cases.upkeep.verify_index import IndexReport, VerifyIndex
from domain.gallery import Gallery
from domain.workspace import WorkspaceId
from entrypoints.cli import move_index, options
from entrypoints.cli.places import workspace_named
from entrypoints.cli.session import FAILED, console, print_json, results, run, session
from entrypoints.http.names import gallery_named

_PAGE = 100

_every = click.option("--all", "every", is_flag=True, help="Every gallery of the workspace.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    gallery: str
    report: IndexReport
    repaired: bool


@click.group()
def index() -> None:
    """Check the vector index or make it anew.

    The index is a view of the record, never the only copy.
    """


index.add_command(move_index.migrate)
index.add_command(move_index.status)


@index.command(epilog="Exit status: 0 where all were written, 1 where some wait to be tried again by the service.")
@options.gallery
@_every
@options.workspace
@options.as_json
@click.pass_context
def rebuild(context: click.Context, *, gallery: str, every: bool, workspace: str, as_json: bool) -> None:
    """Write a gallery's index anew from the record.

    Decisions are the same before, after and meanwhile: the service may run, and nothing that the record has is taken
    away. What only the index has is removed.
    """
    done = run(_rebuild, workspace, gallery, every=every)
    if as_json:
        print_json([{"gallery": name, "references": rebuilt.references} for name, rebuilt in done])
    for name, rebuilt in done:
        if not as_json:
            results.print(f"{name}: {rebuilt.references:,} references written", markup=False)
        if rebuilt.waiting:
            console.print(f"{name}: {rebuilt.waiting:,} wait, and are tried again by the service", markup=False)
    if any(rebuilt.waiting for _, rebuilt in done):
        context.exit(FAILED)


@index.command()
@options.gallery
@options.workspace
@options.as_json
def rekey(*, gallery: str, workspace: str, as_json: bool) -> None:
    """Turn a gallery's vectors by another secret rotation.

    The service may run: nobody is missed meanwhile, decisions are the same, and where it is interrupted it goes on.
    Copies of the index that were stolen before are worth what they were.
    """
    written = run(_rekey, workspace, gallery)
    if as_json:
        print_json({"gallery": gallery, "references": written})
    else:
        results.print(f"{gallery}: {written:,} references are turned by another rotation", markup=False)


@index.command(
    epilog="Exit status: 0 where they agree (with --repair: afterwards), 1 where not or a template is damaged."
)
@options.gallery
@_every
@click.option("--index", "name", metavar="NAME", help="Another index than the one that answers searches.")
@click.option("--repair", is_flag=True, help="Bring in line what differs, and check again.")
@options.workspace
@options.as_json
@click.pass_context
def verify(
    context: click.Context,
    *,
    gallery: str,
    every: bool,
    name: str | None,
    repair: bool,
    workspace: str,
    as_json: bool,
) -> None:
    """Compare the index with the record and name what differs.

    Every id and every vector is compared. What is enrolled or deleted meanwhile may be named too; ask again
    where the service is busy.
    """
    checked = run(
        _verify, workspace, gallery, every=every, name=None if name is None else IndexName(name), repair=repair
    )
    if as_json:
        print_json([_checked(one) for one in checked])
    else:
        for one in checked:
            _print(one)
    if not all(one.report.agrees and not one.report.damaged for one in checked):
        context.exit(FAILED)


async def _rebuild(workspace: str, gallery: str, *, every: bool) -> list[tuple[str, Rebuilt]]:
    async with session() as container:
        place = await workspace_named(container, workspace)
        return [
            (one.name, await _rebuild_one(container, place, one))
            for one in await _galleries(container, place, gallery, every=every)
        ]


async def _rebuild_one(container: AsyncContainer, workspace: WorkspaceId, gallery: Gallery) -> Rebuilt:
    state = await (await container.get(GetGallery))(workspace=workspace, gallery=gallery.id)
    with _counting() as bar:
        task = bar.add_task(escape(gallery.name), total=state.references)
        async with container(scope=Scope.REQUEST) as unit:
            return await (await unit.get(RebuildIndex))(
                workspace=workspace, gallery=gallery.id, counted=lambda done: bar.update(task, completed=done)
            )


async def _rekey(workspace: str, gallery: str) -> int:
    async with session() as container:
        place = await workspace_named(container, workspace)
        state = await (await container.get(GetGallery))(workspace=place, gallery=gallery_named(gallery))
        with _counting() as bar:
            task = bar.add_task(escape(state.gallery.name), total=state.references)
            async with container(scope=Scope.REQUEST) as unit:
                return await (await unit.get(RekeyGallery))(
                    workspace=place,
                    gallery=state.gallery.id,
                    counted=lambda done: bar.update(task, completed=done),
                )


async def _verify(workspace: str, gallery: str, *, every: bool, name: IndexName | None, repair: bool) -> list[_Checked]:
    async with session() as container:
        place = await workspace_named(container, workspace)
        verify_index = await container.get(VerifyIndex)
        checked: list[_Checked] = []
        for one in await _galleries(container, place, gallery, every=every):
            with console.status(f"Comparing {escape(one.name)}"):
                report = await verify_index(workspace=place, gallery=one.id, index=name)
            mends = repair and not report.agrees
            if mends:
                _print(_Checked(gallery=one.name, report=report, repaired=False), remark=True)
                async with container(scope=Scope.REQUEST) as unit:
                    await (await unit.get(MendIndex))(
                        workspace=place,
                        gallery=one.id,
                        references=report.named,
                    )
                report = await verify_index(workspace=place, gallery=one.id, index=name)
            checked.append(_Checked(gallery=one.name, report=report, repaired=mends))
        return checked


def _counting() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


async def _galleries(
    container: AsyncContainer, workspace: WorkspaceId, gallery: str, *, every: bool
) -> Sequence[Gallery]:
    if not every:
        state = await (await container.get(GetGallery))(workspace=workspace, gallery=gallery_named(gallery))
        return [state.gallery]
    found: list[Gallery] = []
    after: UUID | None = None
    async with container(scope=Scope.REQUEST) as unit:
        list_galleries = await unit.get(ListGalleries)
        while True:
            page = await list_galleries(workspace=workspace, limit=_PAGE, after=after)
            found.extend(page.items)
            if (after := page.next_after) is None:
                return found


def _print(checked: _Checked, *, remark: bool = False) -> None:
    report, to = checked.report, console if remark else results
    name = f"[bold]{escape(checked.gallery)}[/]"
    if report.agrees and not report.damaged:
        mended = ", after a repair" if checked.repaired else ""
        to.print(f"{name}: index and record agree on {report.references:,} references{mended}")
        return
    table = Table("reference", "what differs", title=f"{name}: index and record differ", title_justify="left")
    for references, what in _differences(report):
        for reference in references:
            table.add_row(str(reference), what)
    to.print(table)


def _differences(report: IndexReport) -> list[tuple[Sequence[UUID], str]]:
    return [
        (report.missing, "in the record, not in the index"),
        (report.superfluous, "in the index, not in the record"),
        (report.different, "another person or vector in the index"),
        (report.damaged, "a template in the record that does not open"),
    ]


def _checked(checked: _Checked) -> dict[str, object]:
    report = checked.report
    return {
        "gallery": checked.gallery,
        "agrees": report.agrees,
        "repaired": checked.repaired,
        "references": report.references,
        "missing": report.missing,
        "superfluous": report.superfluous,
        "different": report.different,
        "damaged": report.damaged,
    }
