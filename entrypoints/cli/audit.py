"""`facepass audit`."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import click
from dishka import AsyncContainer, Scope
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from application.ports.audit import AuditFilter, AuditLog
from application.use_cases.audit.export_audit import ExportAudit
from application.use_cases.audit.read_audit import ReadAudit
from application.use_cases.audit.verify_audit import VerifyAudit
from domain.audit import INSTANCE, AuditAction, AuditEntry
from domain.audit_chain import ChainReport, KnownHead
from domain.workspace import WorkspaceId
from entrypoints.cli import options
from entrypoints.cli.places import names_of_workspaces, workspace_named
from entrypoints.cli.session import FAILED, console, print_json, print_wide, results, run, session
from entrypoints.http.audit_shapes import head_of, head_text, to_audit_entry, to_audit_report

_INSTANCE = "the instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """Whose chain it is, and what it is called."""

    workspace: WorkspaceId
    name: str


_instance = click.option("--instance", is_flag=True, help="What belongs to no workspace, in place of one.")


@click.group()
def audit() -> None:
    """Read the audit log, and prove that nobody changed it.

    Each workspace has a chain of its own, and so has what belongs to none (--instance).
    """


@audit.command(name="list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Entries, newest first.")
@click.option("--action", type=click.Choice([action.value for action in AuditAction]), help="What was done.")
@click.option("--actor", type=click.UUID, help="The id of the user or key who did it.")
@click.option("--subject", type=click.UUID, help="The id of whom or what it was done to.")
@click.option("--since", type=click.DateTime(), metavar="TIME", help="From then on, by this machine's clock.")
@options.workspace
@_instance
@options.as_json
def list_(
    *,
    limit: int,
    action: str | None,
    actor: UUID | None,
    subject: UUID | None,
    since: datetime | None,
    workspace: str,
    instance: bool,
    as_json: bool,
) -> None:
    """List who did what to whom, newest first."""
    only = AuditFilter(
        action=None if action is None else AuditAction(action),
        actor=actor,
        subject=subject,
        since=None if since is None else since.astimezone(),
    )
    found = run(_list, workspace, instance=instance, limit=limit, only=only)
    if as_json:
        print_json([to_audit_entry(entry) for entry in found])
        return
    table = Table(box=None)
    for heading in ("number", "when", "who", "what", "to whom", "outcome"):
        # Folded and never cut: an id of which the end is missing finds nothing.
        table.add_column(heading, justify="right" if heading == "number" else "left", overflow="fold")
    for entry in found:
        who = entry.actor_kind if entry.actor is None else f"{entry.actor_kind} {entry.actor}"
        table.add_row(
            str(entry.number),
            entry.at.astimezone().isoformat(" ", "seconds"),
            who,
            entry.action,
            "" if entry.subject is None else str(entry.subject),
            entry.outcome,
        )
    print_wide(table)


@audit.command()
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write there, and not here."
)
@options.workspace
@_instance
def export(*, output: Path | None, workspace: str, instance: bool) -> None:
    """Print a chain as JSON lines, oldest first.

    Each line has what its keyed hash was made of, so that it can be checked by itself. That it was exported is
    written down too.
    """
    run(_export, workspace, instance=instance, output=output)


@audit.command(epilog="Exit status: 0 where nothing was found, 1 where something was.")
@click.option(
    "--head",
    metavar="NUMBER:MAC",
    help="Where the chain ended earlier, as this command printed it.",
)
@click.option(
    "--all", "every", is_flag=True, help="Every workspace's chain, of those that are gone too, and the instance's."
)
@options.workspace
@_instance
@options.as_json
@click.pass_context
def verify(
    context: click.Context, *, head: str | None, every: bool, workspace: str, instance: bool, as_json: bool
) -> None:
    """Check that nothing was changed, removed or inserted.

    Every entry's keyed hash is computed again. What is wrong is named by number. Keep the head that is printed at the
    end somewhere else: with --head the next check finds that the end of the chain was cut off, whoever did it.
    """
    if every and (instance or head is not None):
        raise click.UsageError("--all goes with neither --instance nor --head")
    checked = run(_verify, workspace, instance=instance, every=every, known=head_of(head), quiet=as_json)
    if as_json:
        print_json(
            [
                {"chain": chain.name, "workspace_id": chain.workspace, "report": to_audit_report(report)}
                for chain, report in checked
            ]
        )
    else:
        for chain, report in checked:
            _print(chain, report)
    if not all(report.sound for _, report in checked):
        context.exit(FAILED)


async def _list(workspace: str, *, instance: bool, limit: int, only: AuditFilter) -> Sequence[AuditEntry]:
    async with session() as container:
        chain = await _chain(container, workspace, instance=instance)
        read = await container.get(ReadAudit)
        return (await read(workspace=chain.workspace, limit=limit, before=None, only=only)).items


async def _export(workspace: str, *, instance: bool, output: Path | None) -> None:
    async with session() as container:
        chain = await _chain(container, workspace, instance=instance)
        async with container(scope=Scope.REQUEST) as unit:
            lines = await (await unit.get(ExportAudit))(workspace=chain.workspace, only=AuditFilter())
        with nullcontext(sys.stdout.buffer) if output is None else output.open("wb") as file:
            async for line in lines:
                file.write(line)
            file.flush()


async def _verify(
    workspace: str, *, instance: bool, every: bool, known: KnownHead | None, quiet: bool
) -> list[tuple[_Chain, ChainReport]]:
    async with session() as container:
        chains = await _every(container) if every else [await _chain(container, workspace, instance=instance)]
        log: AuditLog = await container.get(AuditLog)
        check = await container.get(VerifyAudit)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        checked: list[tuple[_Chain, ChainReport]] = []
        with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
            for chain in chains:
                head = await log.head(chain.workspace)
                task = bar.add_task(chain.name, total=None if head is None else head.number)
                report = await check(workspace=chain.workspace, known=known, counted=_shown(bar, task))
                checked.append((chain, report))
        return checked


def _shown(bar: Progress, task: int) -> Callable[[int], None]:
    """Show every hundredth number: drawing costs more than checking."""

    def counted(number: int) -> None:
        if number % 100 == 0:
            bar.update(task, completed=number)  # type: ignore[arg-type]  # rich's own NewType of int

    return counted


async def _chain(container: AsyncContainer, workspace: str, *, instance: bool) -> _Chain:
    if instance:
        return _Chain(workspace=INSTANCE, name=_INSTANCE)
    return _Chain(workspace=await workspace_named(container, workspace), name=workspace)


async def _every(container: AsyncContainer) -> list[_Chain]:
    log: AuditLog = await container.get(AuditLog)
    names = {INSTANCE: _INSTANCE, **await names_of_workspaces(container)}
    return [
        _Chain(workspace=workspace, name=names.get(workspace, f"{workspace}, which is gone"))
        for workspace in await log.chains()
    ]


def _print(chain: _Chain, report: ChainReport) -> None:
    if report.sound:
        results.print(f"{chain.name}: {report.entries:,} entries, as they were written", markup=False)
    else:
        table = Table("entry", "fault", "what", title=f"{chain.name}: not as it was written", title_justify="left")
        for one in report.findings:
            number = str(one.number) if one.until == one.number else f"{one.number} to {one.until}"
            table.add_row(number, one.fault.value, one.what)
        results.print(table)
        if report.further:
            results.print(f"and {report.further:,} more")
    if report.last is not None:
        results.print(f"head: {head_text(report.last)}", markup=False, soft_wrap=True)
