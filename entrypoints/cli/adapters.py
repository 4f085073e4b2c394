"""`facepass adapters`: what fills the ports, and whether it keeps what they promise."""

from typing import Self

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from entrypoints.cli import options
from entrypoints.cli.session import FAILED, CommandFailed, console, print_json, results, run, settings_of_process
from entrypoints.wiring.adapters import Port, installed
from entrypoints.wiring.checks import Began, Collected, Event, Promise, Report, check, listed

_OUTCOMES = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "not_tried": "[dim]not tried[/]"}


@click.group()
def adapters() -> None:
    """See which adapters are there, and prove them.

    An adapter fills a port; docs/adapters.md says how one is written.
    """


@adapters.command("list")
@options.as_json
def list_adapters(*, as_json: bool) -> None:
    """List every adapter that is installed, and which are chosen.

    Those of other packages are loaded to see whether they can be.
    """
    found = listed(settings_of_process())
    if as_json:
        print_json(
            [
                {"port": one.port, "name": one.name, "owner": one.owner, "chosen": one.chosen, "trouble": trouble}
                for one, trouble in found
            ]
        )
        return
    table = Table("port", "adapter", "from", "chosen", "trouble")
    for one, trouble in found:
        table.add_row(
            _words(one.port),
            f"[bold]{escape(one.name)}[/]",
            escape(one.owner),
            "[green]chosen[/]" if one.chosen else "",
            f"[red]{escape(trouble)}[/]",
        )
    results.print(table)


@adapters.command("check", epilog="Exit status: 0 where every promise that was tried is kept, 1 where one is not.")
@click.argument("name")
@click.option("--port", type=click.Choice([port.value for port in Port]), help="Where the name is of several ports.")
@options.as_json
@click.pass_context
def check_adapter(context: click.Context, name: str, *, port: str | None, as_json: bool) -> None:
    """Hold an adapter to every promise of its port.

    It is opened with its settings, chosen or not, as the service would open it. Nobody's data are touched: galleries
    and keys are new ones, a queue has a name of its own, and all of it is removed behind.
    """
    wanted = _port_of(name) if port is None else Port(port)
    with _Bar(name) as bar:
        report = run(check, wanted, name, heard=bar.hears)
    if as_json:
        print_json({"kept": report.kept, **_counts(report), "report": report})
    else:
        _print(report)
    if not report.kept:
        context.exit(FAILED)


def _port_of(name: str) -> Port:
    ports = sorted({one.port for one in installed(settings_of_process()) if one.name == name})
    if not ports:
        raise CommandFailed(f"no adapter is called {name!r}; facepass adapters list shows those there are")
    if len(ports) > 1:
        raise CommandFailed(f"{name!r} is an adapter of several ports; say which: --port {' or --port '.join(ports)}")
    return ports[0]


class _Bar:
    """How far the kit is, and which promise it tries at the moment: one that hangs is seen."""

    def __init__(self, name: str) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(f"Opening {escape(name)}", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hears(self, event: Event) -> None:
        match event:
            case Collected(promises=promises):
                self._progress.update(self._task, total=len(promises))
            case Began(promise=promise):
                self._progress.update(self._task, description=escape(promise))
            case Promise():
                self._progress.advance(self._task)


def _print(report: Report) -> None:
    table = Table("promise", "", "why", title=f"[bold]{escape(report.adapter)}[/], {_words(report.port)}")
    table.title_justify = "left"
    for one in report.promises:
        table.add_row(escape(one.promise.capitalize()), _OUTCOMES[one.outcome], escape(one.reason))
    results.print(table)
    passed, failed, not_tried = (report.count(outcome) for outcome in ("passed", "failed", "not_tried"))
    said = f"breaks {failed} of {passed + failed} promises" if failed else f"keeps all {passed} promises"
    results.print(f"{escape(report.adapter)} {said} that were tried; {not_tried} were not tried.")
    if failed:
        console.print("--json has the details of each failure.")


def _counts(report: Report) -> dict[str, int]:
    return {outcome: report.count(outcome) for outcome in ("passed", "failed", "not_tried")}


def _words(port: Port) -> str:
    return port.value.replace("_", " ")
