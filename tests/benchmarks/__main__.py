"""`just bench [NAME...]`: measure, and say what was reached."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from tests.benchmarks.accuracy import accuracy
from tests.benchmarks.audit import audit
from tests.benchmarks.bench import Bench
from tests.benchmarks.embedder import embedder
from tests.benchmarks.enrol import enrol
from tests.benchmarks.health import health
from tests.benchmarks.latency import latency
from tests.benchmarks.machine import machine
from tests.benchmarks.megapixels import megapixels
from tests.benchmarks.rows import Row
from tests.benchmarks.search import search
from tests.benchmarks.start import start
from tests.benchmarks.verify import verify

BENCHMARKS: Final[dict[str, Callable[[Bench], list[Row]]]] = {
    measure.__name__: measure
    for measure in (embedder, verify, audit, latency, enrol, megapixels, start, search, health, accuracy)
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure there.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the table there.")
def main(*, names: Sequence[str], json_file: Path | None, markdown: Path | None) -> None:
    """Run all benchmarks, or those named. The exit status is 1 where a bar was missed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    remarks = Console(stderr=True)
    began = time.monotonic()
    rows: list[Row] = []
    running = ""

    def tell(what: str) -> None:
        remarks.print(f"{time.monotonic() - began:5.0f} s  {running}: {what}", highlight=False)

    bench = Bench(tell)
    try:
        with bench.stack:
            for running in names or BENCHMARKS:
                tell("begins")
                rows.extend(BENCHMARKS[running](bench))
    finally:
        # Also where one broke, or was interrupted: what was measured before it stands.
        where = machine()
        Console(width=None if sys.stdout.isatty() else 160).print(_table(rows, where))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": where, "rows": _plain(rows)})))
    if markdown is not None:
        markdown.write_text(_markdown(rows, where), encoding="utf-8")
    sys.exit(any(row.reached is False for row in rows))


def _table(rows: Sequence[Row], where: str) -> Table:
    table = Table(title=f"Benchmarks ({where})", title_justify="left", show_lines=True)
    table.add_column("what")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("bar", justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("how")
    styles = {True: "green", False: "bold red", None: ""}
    for row in rows:
        table.add_row(
            row.what, row.measured, row.wanted, f"[{styles[row.reached] or 'default'}]{row.verdict}", row.note
        )
    return table


def _markdown(rows: Sequence[Row], where: str) -> str:
    lines = [f"Measured on {where}.", "", "| what | measured | bar | | how |", "| --- | ---: | ---: | --- | --- |"]
    lines += [f"| {row.what} | {row.measured} | {row.wanted} | {row.verdict} | {row.note} |" for row in rows]
    return "\n".join([*lines, ""])


def _plain(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [
        {
            "name": row.name,
            "what": row.what,
            "value": row.value,
            "bar": None if row.bar is None else row.bar.limit,
            "at_least": None if row.bar is None else row.bar.at_least,
            "reached": row.reached,
            "note": row.note,
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()
