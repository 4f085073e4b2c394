"""`just bench-backends`: the same people in every vector index, the same images in every blob store, side by side."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from entrypoints.logs import configure_logs
from entrypoints.settings import Settings, process_environment
from tests.benchmarks.bench import NO_PHOTOGRAPHS, Bench
from tests.benchmarks.blob_backends import blob_stores
from tests.benchmarks.index_backends import vector_indexes
from tests.benchmarks.machine import machine
from tests.benchmarks.measured import Part, Progress


@click.command()
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure there.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the table there.")
def main(*, json_file: Path | None, markdown: Path | None) -> None:
    """Measure every backend that can run here.

    FACEPASS_TEST_QDRANT_URL names a Qdrant server, in which a collection is left behind; without one qdrant-client's
    local mode is measured in its place.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    configure_logs(Settings(log_level="error"))
    progress = Progress(time.monotonic())
    bench = Bench(progress.of("people"))
    if not bench.photos:
        raise click.ClickException(NO_PHOTOGRAPHS)
    before = os.getloadavg()[0]
    with bench.stack:
        parts = [
            blob_stores(progress),
            vector_indexes(bench, progress.of("people"), process_environment().get("FACEPASS_TEST_QDRANT_URL")),
        ][::-1]
    where = f"{machine()}; load over the minute before it began {before:.1f}"
    results = Console(width=None if sys.stdout.isatty() else 160)
    results.print(_table(parts, where))
    for one in (backend for part in parts for backend in part.backends):
        results.print(f"{one.backend}: {one.note}.", highlight=False)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": where, "ports": parts})))
    if markdown is not None:
        markdown.write_text(_markdown(parts, where), encoding="utf-8")


def _table(parts: Sequence[Part], where: str) -> Table:
    columns = 1 + max(len(part.backends) for part in parts)
    table = Table(
        title=f"Backends ({where}; in brackets: times the default's)", title_justify="left", show_header=False
    )
    for _ in range(columns):
        table.add_column()
    for part in parts:
        table.add_row(f"[bold]{part.port}[/]", *(f"[bold]{one.backend}[/]" for one in part.backends))
        for figure in part.figures:
            table.add_row(figure.what, *(part.cell(figure, one) for one in part.backends))
        table.add_section()
    return table


def _markdown(parts: Sequence[Part], where: str) -> str:
    lines = [f"Measured on {where}.", ""]
    for part in parts:
        lines += [
            f"| {part.port} | {' | '.join(one.backend for one in part.backends)} |",
            f"| --- |{' ---: |' * len(part.backends)}",
            *(
                f"| {figure.what} | {' | '.join(part.cell(figure, one) for one in part.backends)} |"
                for figure in part.figures
            ),
            "",
            *(f"- **{one.backend}**: {one.note}." for one in part.backends),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
