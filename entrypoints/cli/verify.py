"""`facepass verify`."""

import time
from pathlib import Path
from uuid import UUID

import click

from application.use_cases.matching.verify_face import Verification, VerifyFace
from domain.enrolment import ReferenceId
from entrypoints.cli import options
from entrypoints.cli.compare import compared, print_comparison
from entrypoints.cli.facts import facts
from entrypoints.cli.places import workspace_named
from entrypoints.cli.session import print_json, results, run, session
from entrypoints.cli.words import STATUS, STATUS_HELP, decision_text, person_text, quality_text, threshold_text
from entrypoints.http.names import gallery_named
from entrypoints.http.shapes import to_compared, to_verified


@click.command(epilog=STATUS_HELP)
@options.image
@click.option("--person", metavar="EXTERNAL_ID", help="Whom it should show: compare with all references of theirs.")
@click.option("--reference", type=click.UUID, metavar="ID", help="Compare with this one reference.")
@click.option("--other", type=options.EXISTING_FILE, metavar="IMAGE", help="Compare with the face in this image.")
@options.gallery
@options.workspace
@options.threshold
@options.target_fmr
@options.as_json
@click.pass_context
def verify(
    context: click.Context,
    *,
    image: Path,
    person: str | None,
    reference: UUID | None,
    other: Path | None,
    gallery: str,
    workspace: str,
    threshold: float | None,
    target_fmr: float | None,
    as_json: bool,
) -> None:
    """Verify that a face is a given person (1:1).

    The largest face in IMAGE counts. Name exactly one of --person, --reference and --other.
    """
    if sum(one is not None for one in (person, reference, other)) != 1:
        raise click.UsageError("name exactly one of --person, --reference and --other")
    if other is not None:
        comparison, took_ms = run(
            compared, image.read_bytes(), other.read_bytes(), threshold=threshold, target_fmr=target_fmr
        )
        if as_json:
            print_json(to_compared(comparison, took_ms=took_ms))
        else:
            print_comparison(comparison, took_ms)
        context.exit(STATUS[comparison.decision.outcome])
    verification, took_ms = run(
        _verify,
        image.read_bytes(),
        workspace=workspace,
        gallery=gallery,
        person=person,
        reference=None if reference is None else ReferenceId(reference),
        threshold=threshold,
        target_fmr=target_fmr,
    )
    if as_json:
        print_json(to_verified(verification, took_ms=took_ms))
    else:
        _print(verification, took_ms)
    context.exit(STATUS[verification.decision.outcome])


async def _verify(
    content: bytes,
    *,
    workspace: str,
    gallery: str,
    person: str | None,
    reference: ReferenceId | None,
    threshold: float | None,
    target_fmr: float | None,
) -> tuple[Verification, float]:
    async with session() as container:
        place = await workspace_named(container, workspace)
        verify_face = await container.get(VerifyFace)
        began = time.perf_counter()
        verification = await verify_face(
            workspace=place,
            frames=[content],
            gallery=gallery_named(gallery),
            claimed=person,
            reference=reference,
            threshold=threshold,
            target_fmr=target_fmr,
        )
        return verification, round((time.perf_counter() - began) * 1000, 1)


def _print(verification: Verification, took_ms: float) -> None:
    results.print(
        facts(
            ("decision", decision_text(verification.decision)),
            ("person", f"[bold]{person_text(verification.best)}[/]"),
            ("similarity", f"{verification.similarity:.4f}"),
            ("threshold", threshold_text(verification.criterion)),
            ("quality", quality_text(verification.probe.face.quality)),
            ("reference", str(verification.best.reference)),
            ("model", verification.model),
            ("time", f"{took_ms:.0f} ms"),
        )
    )
