"""`facepass gallery`: move a gallery to another face model."""

import asyncio
from collections.abc import Mapping

import click
from dishka import AsyncContainer, Scope
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from application.use_cases.galleries.compare_spaces import Question
from application.use_cases.galleries.finish_migration import FinishMigration
from application.use_cases.galleries.get_migration import GetMigration, Migration
from application.use_cases.galleries.migrate_gallery import MigrateGallery
from application.use_cases.jobs.get_job import GetJob
from application.use_cases.jobs.run_job import RunJob
from domain.job import Job, JobStatus
from entrypoints.cli import options
from entrypoints.cli.places import workspace_named
from entrypoints.cli.session import FAILED, console, print_json, results, run, session
from entrypoints.http.job_shapes import to_job
from entrypoints.http.names import gallery_named
from entrypoints.http.shapes import to_migration

_LOOK_EVERY = 0.5
"""Seconds."""

_QUESTIONS = {
    Question.SEARCH: "who is this",
    Question.GENUINE: "is this its own person",
    Question.IMPOSTOR: "is this somebody else",
}

_name = click.argument("name", metavar="GALLERY")


@click.group()
def gallery() -> None:
    """Move a gallery to another model.

    Both models must be set: the second one by FACEPASS_NEXT_FACE_EMBEDDER__BACKEND and
    FACEPASS_NEXT_FACE_EMBEDDER__PACK, for the service too.
    """


@gallery.command(epilog="Exit status: 0 where it was done, 1 where it was not.")
@_name
@click.option("--to", metavar="PACK", help="The model to move to; the only other one that is set, where left out.")
@click.option("--switch", is_flag=True, help="Change over; without it the models are compared, and nothing changes.")
@click.option("--leave-behind", is_flag=True, help="Change over even though some references cannot follow.")
@options.workspace
@options.as_json
@click.pass_context
def migrate(
    context: click.Context,
    *,
    name: str,
    to: str | None,
    switch: bool,
    leave_behind: bool,
    workspace: str,
    as_json: bool,
) -> None:
    """Embed a gallery's references with another model, and change over to it.

    GALLERY goes on with its model meanwhile, and the service may run. Interrupted, it goes on where it stopped. To
    take a change back, move to the former model with --switch.
    """
    job = run(_migrate, workspace, name, to=to, switch=switch, leave_behind=leave_behind)
    _print(job, as_json=as_json)
    if job.status is not JobStatus.SUCCEEDED:
        context.exit(FAILED)


@gallery.command()
@_name
@options.workspace
@options.as_json
def migration(*, name: str, workspace: str, as_json: bool) -> None:
    """Show how far a gallery is on its way to another model."""
    found = run(_migration, workspace, name)
    if as_json:
        print_json(to_migration(found))
        return
    results.print(
        f"{found.phase.value}: {found.move.source} to {found.move.target},"
        f" {found.standing.followed:,} of {found.standing.references:,} references have followed",
        markup=False,
    )
    _print_standing(found.standing.left_behind, found.move.report)


@gallery.command(epilog="Exit status: 0 where it was done, 1 where it was not.")
@_name
@options.workspace
@options.as_json
@click.pass_context
def finish(context: click.Context, *, name: str, workspace: str, as_json: bool) -> None:
    """Keep what the gallery's present model made, and give up the rest.

    After a switch that ends the way back, and begins two minutes after it at the earliest; before one it gives the
    migration up.
    """
    job = run(_finish, workspace, name)
    _print(job, as_json=as_json)
    if job.status is not JobStatus.SUCCEEDED:
        context.exit(FAILED)


async def _migrate(workspace: str, name: str, *, to: str | None, switch: bool, leave_behind: bool) -> Job:
    async with session() as container:
        place = await workspace_named(container, workspace)
        async with container(scope=Scope.REQUEST) as unit:
            job = await (await unit.get(MigrateGallery))(
                workspace=place, gallery=gallery_named(name), to=to, switch=switch, leave_behind=leave_behind
            )
        return await _done(container, job)


async def _finish(workspace: str, name: str) -> Job:
    async with session() as container:
        place = await workspace_named(container, workspace)
        async with container(scope=Scope.REQUEST) as unit:
            job = await (await unit.get(FinishMigration))(workspace=place, gallery=gallery_named(name))
        return await _done(container, job)


async def _migration(workspace: str, name: str) -> Migration:
    async with session() as container:
        place = await workspace_named(container, workspace)
        async with container(scope=Scope.REQUEST) as unit:
            return await (await unit.get(GetMigration))(workspace=place, gallery=gallery_named(name))


async def _done(container: AsyncContainer, job: Job) -> Job:
    """Do a job here, unless the service or a worker was faster; either way return it when it has ended."""
    run_job = await container.get(RunJob)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("waiting", total=None)
        working = asyncio.create_task(run_job(workspace=job.workspace, job=job.id))
        try:
            while not job.ended:
                await asyncio.wait({working}, timeout=_LOOK_EVERY)
                async with container(scope=Scope.REQUEST) as unit:
                    job = await (await unit.get(GetJob))(workspace=job.workspace, job=job.id)
                bar.update(
                    task,
                    description=escape(job.progress.stage or "waiting"),
                    completed=job.progress.done,
                    total=job.progress.total,
                )
                if working.done() and not job.ended:
                    working.result()
                    await asyncio.sleep(_LOOK_EVERY)
                    working = asyncio.create_task(run_job(workspace=job.workspace, job=job.id))
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    return job


def _print(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(to_job(job))
        return
    if job.status is not JobStatus.SUCCEEDED:
        why = f": {job.failures[-1].detail} ({job.failures[-1].code})" if job.failures else ""
        console.print(f"{job.status.value}{why}", markup=False, soft_wrap=True)
        return
    result = job.result or {}
    if "settled" in result:
        results.print(f"{result['settled']:,} references have the present model's template alone", markup=False)
        return
    done = "the gallery has changed over" if result["switched"] else "nothing has changed yet; --switch changes over"
    results.print(f"{result['followed']:,} of {result['references']:,} references have followed: {done}", markup=False)
    _print_standing(result["left_behind"], result["agreement"])


def _print_standing(left_behind: object, report: object) -> None:
    if isinstance(left_behind, Mapping):
        for code, number in left_behind.items():
            results.print(f"{number:,} could not follow: {code}", markup=False)
    if not isinstance(report, Mapping) or not report["probes"]:
        return
    table = Table("asked of both models", "times", "same answer", "right before", "right after")
    for question, asked in _QUESTIONS.items():
        counts = report[question.value]
        table.add_row(asked, *(f"{counts[one]:,}" for one in ("compared", "same", "right_before", "right_after")))
    results.print(table)
