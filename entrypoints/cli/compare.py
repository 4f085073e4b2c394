"""`facepass compare`."""

import time
from pathlib import Path

import click

from application.use_cases.matching.compare_faces import CompareFaces, Comparison
from domain.audit import INSTANCE
from entrypoints.cli import options
from entrypoints.cli.facts import facts
from entrypoints.cli.session import print_json, results, run, session
from entrypoints.cli.words import STATUS, STATUS_HELP, decision_text, quality_text, threshold_text
from entrypoints.http.shapes import to_compared


@click.command(epilog=STATUS_HELP)
@options.image
@click.argument("other_image", type=options.EXISTING_FILE)
@options.threshold
@options.target_fmr
@options.as_json
@click.pass_context
def compare(
    context: click.Context,
    *,
    image: Path,
    other_image: Path,
    threshold: float | None,
    target_fmr: float | None,
    as_json: bool,
) -> None:
    """Tell whether two images show the same person.

    Nothing is kept, nobody has to be enrolled. The largest face of each image counts.
    """
    comparison, took_ms = run(
        compared, image.read_bytes(), other_image.read_bytes(), threshold=threshold, target_fmr=target_fmr
    )
    if as_json:
        print_json(to_compared(comparison, took_ms=took_ms))
    else:
        print_comparison(comparison, took_ms)
    context.exit(STATUS[comparison.decision.outcome])


async def compared(
    image: bytes, other_image: bytes, *, threshold: float | None, target_fmr: float | None
) -> tuple[Comparison, float]:
    """Compare two images; the milliseconds are those of the use case, without its start."""
    async with session() as container:
        compare_faces = await container.get(CompareFaces)
        began = time.perf_counter()
        comparison = await compare_faces(
            workspace=INSTANCE,
            frames=[image],
            other_image=other_image,
            threshold=threshold,
            target_fmr=target_fmr,
        )
        return comparison, round((time.perf_counter() - began) * 1000, 1)


def print_comparison(comparison: Comparison, took_ms: float) -> None:
    """Print a comparison for people."""
    results.print(
        facts(
            ("decision", decision_text(comparison.decision)),
            ("similarity", f"{comparison.similarity:.4f}"),
            ("threshold", threshold_text(comparison.criterion)),
            (
                "quality",
                f"{quality_text(comparison.probe.face.quality)}, {quality_text(comparison.other.face.quality)}",
            ),
            ("model", comparison.model),
            ("time", f"{took_ms:.0f} ms"),
        )
    )
