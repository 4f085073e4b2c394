"""`facepass detect`."""

import time
from pathlib import Path

import click
from rich.table import Table

from application.use_cases.matching.detect_faces import DetectFaces
from domain.face import Analysis, Face
from entrypoints.cli import options
from entrypoints.cli.pictures import Marked, checked_picture, save_picture
from entrypoints.cli.session import console, print_json, results, run, session
from entrypoints.cli.words import quality_text
from entrypoints.http.shapes import to_detected


@click.command()
@options.image
@options.output
@options.as_json
def detect(image: Path, output: Path | None, *, as_json: bool) -> None:
    """Find every face in an image.

    Says where each face is, how it is turned, how good it is and why. Nothing is kept. Reasons are those for
    which a gallery would refuse to enrol the face.
    """
    checked_picture(output)
    content = image.read_bytes()
    analysis, model, took_ms = run(_detect, content)
    if as_json:
        print_json(to_detected(analysis, model=model, took_ms=took_ms))
    else:
        _print(analysis, model, took_ms)
    if output is not None:
        save_picture(content, [_marked(number, face) for number, face in enumerate(analysis.faces, 1)], output)
        console.print(f"Picture: {output}", markup=False)


async def _detect(content: bytes) -> tuple[Analysis, str, float]:
    async with session() as container:
        find = await container.get(DetectFaces)
        began = time.perf_counter()
        analysis = await find(image=content)
        return analysis, find.embedder.space.model, round((time.perf_counter() - began) * 1000, 1)


def _print(analysis: Analysis, model: str, took_ms: float) -> None:
    if analysis.faces:
        table = Table("face", "box: left, top, width, height", "sure", "yaw, pitch, roll", "quality")
        for number, face in enumerate(analysis.faces, 1):
            box, pose = face.box, face.pose
            table.add_row(
                str(number),
                f"{box.left:.0f}, {box.top:.0f}, {box.width:.0f}, {box.height:.0f}",
                f"{face.confidence:.2f}",
                f"{pose.yaw:+.0f}°, {pose.pitch:+.0f}°, {pose.roll:+.0f}°",
                quality_text(face.quality),
            )
        results.print(table)
    count = {0: "No face", 1: "1 face"}.get(len(analysis.faces), f"{len(analysis.faces)} faces")
    results.print(f"{count} in {analysis.width} x {analysis.height} pixels, {model}, {took_ms:.0f} ms.")


def _marked(number: int, face: Face) -> Marked:
    reasons = tuple(reason.value.replace("_", " ") for reason in face.quality.reasons)
    return Marked(
        box=face.box,
        title=f"{number}   quality {face.quality.score:.2f}",
        lines=reasons or ("nothing wrong",),
        tone="bad" if reasons else "good",
        landmarks=face.landmarks,
    )
