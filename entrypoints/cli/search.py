"""`facepass search`."""

import time
from pathlib import Path

import click
from rich.table import Table

from application.use_cases.galleries.get_gallery import GetGallery
from application.use_cases.matching.search_faces import (
    DEFAULT_LIMIT,
    LARGEST_LIMIT,
    SearchedFace,
    SearchFaces,
    SearchResult,
)
from domain.decision import Capacity, Outcome
from entrypoints.cli import options
from entrypoints.cli.pictures import Marked, Tone, checked_picture, save_picture
from entrypoints.cli.places import workspace_named
from entrypoints.cli.session import console, print_json, results, run, session
from entrypoints.cli.words import (
    OUTCOMES,
    STATUS,
    STATUS_HELP,
    capacity_text,
    decision_text,
    person_text,
    threshold_text,
)
from entrypoints.http.names import gallery_named
from entrypoints.http.shapes import to_searched

_TONES: dict[Outcome, Tone] = {Outcome.MATCH: "good", Outcome.UNCERTAIN: "doubtful", Outcome.NO_MATCH: "plain"}


@click.command(epilog=STATUS_HELP + " With --all-faces: 0 where any face matches, 11 where any is uncertain.")
@options.image
@click.option("--all-faces", is_flag=True, help="Search for every face in the image, not for the largest alone.")
@click.option(
    "--limit", type=click.IntRange(1, LARGEST_LIMIT), default=DEFAULT_LIMIT, show_default=True, help="People a face."
)
@options.gallery
@options.workspace
@options.threshold
@options.target_fpir
@options.output
@options.as_json
@click.pass_context
def search(
    context: click.Context,
    *,
    image: Path,
    all_faces: bool,
    limit: int,
    gallery: str,
    workspace: str,
    threshold: float | None,
    target_fpir: float | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find out who a face is (1:N).

    A stranger is nobody, never the nearest person: the threshold follows from the target and the number of
    references.
    """
    checked_picture(output)
    content = image.read_bytes()
    result, took_ms, expected = run(
        _search,
        content,
        workspace=workspace,
        gallery=gallery,
        all_faces=all_faces,
        limit=limit,
        threshold=threshold,
        target_fpir=target_fpir,
    )
    for reference in sorted({reference for face in result.faces for reference in face.damaged}):
        console.print(f"[yellow]left out:[/] the template of reference {reference} does not open")
    if as_json:
        print_json(to_searched(result, took_ms=took_ms))
    else:
        _print(result, took_ms, expected)
    if output is not None:
        save_picture(content, [_marked(face) for face in result.faces], output)
        console.print(f"Picture: {output}", markup=False)
    context.exit(STATUS[_overall(result)])


async def _search(
    content: bytes,
    *,
    workspace: str,
    gallery: str,
    all_faces: bool,
    limit: int,
    threshold: float | None,
    target_fpir: float | None,
) -> tuple[SearchResult, float, Capacity | None]:
    async with session() as container:
        place = await workspace_named(container, workspace)
        search_faces = await container.get(SearchFaces)
        began = time.perf_counter()
        result = await search_faces(
            workspace=place,
            frames=[content],
            gallery=gallery_named(gallery),
            every_face=all_faces,
            limit=limit,
            threshold=threshold,
            target_fpir=target_fpir,
        )
        took_ms = round((time.perf_counter() - began) * 1000, 1)
        shown = await (await container.get(GetGallery))(workspace=place, gallery=gallery_named(gallery))
        return result, took_ms, shown.capacity


def _overall(result: SearchResult) -> Outcome:
    outcomes = {face.decision.outcome for face in result.faces}
    return next((one for one in (Outcome.MATCH, Outcome.UNCERTAIN) if one in outcomes), Outcome.NO_MATCH)


def _print(result: SearchResult, took_ms: float, expected: Capacity | None) -> None:
    table = Table("face", "who", "similarity", "margin", "decision")
    for number, face in enumerate(result.faces, 1):
        for candidate in face.candidates:
            table.add_row(
                str(number),
                f"[bold]{person_text(candidate.best)}[/]",
                f"{candidate.similarity:.4f}",
                "" if candidate.margin is None else f"{candidate.margin:.4f}",
                decision_text(candidate.decision),
            )
        if not face.candidates:
            table.add_row(str(number), "nobody enrolled", "", "", decision_text(face.decision))
    if result.faces:
        results.print(table)
    else:
        results.print("No face in the image.")
    results.print(f"Threshold {threshold_text(result.criterion)}, {result.references:,} references searched.")
    results.print(f"{result.model}, {took_ms:.0f} ms, of which {result.query_ms:.0f} ms for the search itself.")
    if expected is not None and expected.outgrown:
        results.print(capacity_text(expected))


def _marked(face: SearchedFace) -> Marked:
    tone = _TONES[face.decision.outcome]
    if not face.candidates:
        return Marked(box=face.face.box, title="nobody enrolled", tone=tone)
    best = face.candidates[0]
    name = str(best.best.person) if best.best.external_id is None else best.best.external_id
    said = "" if best.decision.outcome is Outcome.MATCH else f", {OUTCOMES[best.decision.outcome]}"
    return Marked(box=face.face.box, title=name, lines=(f"similarity {best.similarity:.3f}{said}",), tone=tone)
