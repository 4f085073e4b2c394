"""`facepass models`: which face models there are, on whose terms, and what they are good for."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import click
from rich.markup import escape
from rich.table import Table

from application.ports.calibrations import Calibrations
from application.ports.model_packs import ModelPacks
from domain.calibration import Calibration
from domain.decision import Capacity, capacity, search_criterion
from domain.errors import PackMissing, PackNotCommercial, PackUncalibrated
from domain.gallery import DEFAULT_TARGET_FPIR, Policy
from domain.model_pack import (
    ArchiveSource,
    DetectorPart,
    EmbedderPart,
    InputLayout,
    ModelPack,
    PackReport,
    PackState,
    PackStatus,
    Part,
    RegistrySource,
    UrlSource,
)
from entrypoints.cli import options
from entrypoints.cli.facts import facts
from entrypoints.cli.session import FAILED, PullProgress, print_json, results, run, session
from entrypoints.cli.words import one_in, size_text

T = TypeVar("T")

FMR_TARGETS = (1e-2, 1e-3, 1e-4, 1e-5)
GALLERY_SIZES = (100, 1_000, 10_000, 100_000)

_STYLES = {PackState.READY: "green", PackState.ABSENT: "dim", PackState.CORRUPT: "red"}
_STATES = {PackState.READY: "ready", PackState.ABSENT: "not pulled", PackState.CORRUPT: "damaged"}


@click.group()
def models() -> None:
    """Get and check face models.

    A pack holds a detector and an embedder, or liveness models.
    """


@models.command("list")
@options.as_json
def list_models(*, as_json: bool) -> None:
    """List every model pack: licence, whether it is here, size."""
    statuses = run(_with_packs, lambda packs: packs.listed())
    sizes = {status.pack.name: run(_with_packs, lambda packs, one=status: _size(packs, one)) for status in statuses}
    if as_json:
        print_json([_listed(status, sizes[status.pack.name]) for status in statuses])
        return
    table = Table("pack", "licences", "commercial use", "state", "size", title_justify="left")
    for status in statuses:
        pack = status.pack
        table.add_row(
            f"[bold]{escape(pack.id)}[/]",
            escape(", ".join(dict.fromkeys(part.weights.licence for part in pack.parts))),
            "allowed" if pack.commercial else "[yellow]forbidden[/]",
            f"[{_STYLES[status.state]}]{_STATES[status.state]}[/]",
            "" if sizes[pack.name] is None else size_text(sizes[pack.name] or 0),
        )
    results.print(table)
    results.print(
        "Commercial use is what the licences of the weights say. They do not cover what a model was trained on:"
    )
    for status in statuses:
        results.print(f"  [bold]{escape(status.pack.name)}[/]: {escape(status.pack.training_data.strip())}")
    _print_warnings(statuses)


@models.command()
@click.argument("name")
@options.as_json
def pull(name: str, *, as_json: bool) -> None:
    """Fetch a pack and make it ready.

    Every file is checked against its hash. Nothing is done where the pack is there and intact.
    """
    with PullProgress() as progress:
        status = run(_with_packs, lambda packs: packs.pull(name, progress))
    if as_json:
        print_json(_listed(status, run(_with_packs, lambda packs: _size(packs, status))))
        return
    results.print(f"{escape(status.pack.id)} is ready.")
    _print_commercial(status.pack)
    _print_warnings([status])


@models.command(epilog="Exit status: 0 where all agree, 1 where anything differs or is missing.")
@click.argument("name")
@options.as_json
@click.pass_context
def verify(context: click.Context, name: str, *, as_json: bool) -> None:
    """Check every file of a pack against its recorded hash."""
    report = run(_with_packs, lambda packs: packs.verify(name))
    if as_json:
        print_json(_verified(report))
    else:
        _print_verified(report)
    if not report.intact:
        context.exit(FAILED)


@models.command()
@click.argument("name")
@options.as_json
def show(name: str, *, as_json: bool) -> None:
    """Show where a pack comes from and how far it can be trusted.

    With its sources, how images are prepared for it, its thresholds and the gallery sizes it is good for.
    """
    status, calibration = run(_shown, name)
    if as_json:
        print_json(_described(status, calibration))
        return
    pack = status.pack
    results.print(f"[bold]{escape(pack.id)}[/]: {escape(pack.summary)}")
    results.print(f"State: [{_STYLES[status.state]}]{_STATES[status.state]}[/]")
    _print_commercial(pack)
    _print_warnings([status])
    for part in pack.parts:
        _print_part(part)
    if pack.embedder is None:
        return
    if calibration is None:
        results.print(
            "\nNot calibrated: no threshold follows from a target error rate, so it cannot be served. "
            f"{_how_to_calibrate(pack)}",
            markup=False,
        )
        return
    _print_thresholds(calibration)
    _print_capacity(calibration)


async def _with_packs(work: Callable[[ModelPacks], T]) -> T:
    """Do something with the packs; neither the database nor a model is started."""
    async with session() as container:
        return await asyncio.to_thread(work, await container.get(ModelPacks))


async def _shown(name: str) -> tuple[PackStatus, Calibration | None]:
    async with session() as container:
        packs, calibrations = await container.get(ModelPacks), await container.get(Calibrations)
        pack = packs.get(name)
        status = next(one for one in packs.listed() if one.pack.id == pack.id)
        try:
            space = pack.space
            calibration = None if space is None else calibrations.of(space)
        except (PackMissing, PackUncalibrated):
            calibration = None
        return PackStatus(pack=pack, state=status.state, warnings=status.warnings), calibration


def _how_to_calibrate(pack: ModelPack) -> str:
    if pack.detector is None:
        return "It has no detector, so it cannot be calibrated either."
    return (
        f"Where this version can run its detector ({pack.detector.decoder.value}), a curve is measured with: "
        f"facepass calibrate FOLDER --pack {pack.name} --write"
    )


def _size(packs: ModelPacks, status: PackStatus) -> int | None:
    """Return the bytes of a pack's files, None where they are not here or not to be used."""
    if status.state is not PackState.READY:
        return None
    try:
        return sum(path.stat().st_size for path in packs.files(status.pack.name).values())
    except PackNotCommercial:
        return None


def _print_commercial(pack: ModelPack) -> None:
    allowed = "allowed by the licences of the weights" if pack.commercial else "[yellow]forbidden by a licence[/]"
    results.print(f"Commercial use: {allowed}. {escape(pack.training_data.strip())}")


def _print_warnings(statuses: list[PackStatus] | tuple[PackStatus, ...]) -> None:
    for status in statuses:
        for warning in status.warnings:
            results.print(f"[yellow]{escape(warning)}[/]")


def _print_part(part: Part) -> None:
    weights = part.weights
    results.print(f"\n[bold]{escape(part.name)}[/]")
    results.print(
        facts(
            ("kind", part.decoder.value),
            ("file", escape(weights.file)),
            ("from", escape(_source(part))),
            ("SHA-256", weights.source_sha256 or "whatever the first pull brings"),
            ("converted by", escape(weights.converter or "nothing")),
            ("licence", f"{escape(weights.licence)}: {escape(weights.licence_note)}"),
            ("input", _preprocessing(part)),
        )
    )


def _source(part: Part) -> str:
    match part.weights.source:
        case RegistrySource() as source:
            return f"{source.member} in {source.archive}, package registry"
        case UrlSource() as source:
            return source.url
        case ArchiveSource() as source:
            return f"{source.member} in {source.url}"


def _preprocessing(part: Part) -> str:
    pixels = part.pixels
    size = "any size" if pixels.width is None else f"{pixels.width} x {pixels.height} pixels"
    if pixels.layout is InputLayout.UINT8_NHWC:
        numbers = "as bytes 0 to 255"
    elif set(pixels.mean) == {0.0} and set(pixels.divisor) == {1.0}:
        numbers = "as numbers 0 to 255"
    else:
        mean, divisor = (", ".join(f"{value:g}" for value in dict.fromkeys(by)) for by in (pixels.mean, pixels.divisor))
        numbers = f"less {mean}, divided by {divisor}"
    numbers = f"{pixels.colour.value.upper()}, {numbers}"
    if isinstance(part, DetectorPart):
        return (
            f"the whole image, {size}, sides multiples of {part.multiple}; {numbers}; "
            f"faces from confidence {part.confidence:g}, overlaps above {part.nms_iou:g} are one face"
        )
    if isinstance(part, EmbedderPart):
        mirrored = ", and its mirror image: the two vectors are added" if part.mirror else ""
        return (
            f"the face, turned and scaled so that five landmarks lie where they were in training, {size}{mirrored}; "
            f"{numbers}; {part.dimension} numbers out, scaled to length 1"
        )
    return f"a square around the face, {part.crop_scale:g} times its box, {size}; {numbers}"


def _print_thresholds(calibration: Calibration) -> None:
    evidence = calibration.evidence
    results.print(
        f"\n[bold]Calibration[/], measured on {escape(evidence.source)}, {evidence.measured_on}: "
        f"{evidence.people:,} people, {evidence.images:,} photographs, {evidence.genuine_pairs:,} pairs of one person, "
        f"{evidence.impostor_pairs:,} of two. "
        f"It reaches down to one false match in {one_in(calibration.smallest_rate)}."
    )
    table = Table(
        "one false match in",
        "similarity from",
        "the rate, 95 %: one in",
        "people not recognised",
        title="Verification (1:1)",
        title_justify="left",
    )
    for target in FMR_TARGETS:
        found = calibration.threshold_at(target)
        if found is None:
            table.add_row(one_in(target), "beyond the data", "", "")
            continue
        rates = (found.false_match_rate_high, found.false_match_rate_low)
        low, high = (one_in(rate) if rate > 0 else "any" for rate in rates)
        missed = calibration.false_non_match_rate_at(found.value)
        table.add_row(one_in(target), f"{found.value:.4f}", f"{low} to {high}", f"{missed:.1%}")
    results.print(table)


def _print_capacity(calibration: Calibration) -> None:
    table = Table(
        "references",
        "similarity from",
        "enrolled people not found",
        "good enough",
        title=f"Search (1:N) at one false positive in {one_in(DEFAULT_TARGET_FPIR)} searches of strangers",
        title_justify="left",
    )
    for references, threshold, expected in _capacities(calibration):
        if expected.expected_fnir is None or threshold is None:
            table.add_row(f"{references:,}", "beyond the data", "", "[red]no[/]")
            continue
        fit = "[red]no, outgrown[/]" if expected.outgrown else "[green]yes[/]"
        table.add_row(f"{references:,}", f"{threshold:.4f}", f"{expected.expected_fnir:.1%}", fit)
    results.print(table)


def _capacities(calibration: Calibration) -> list[tuple[int, float | None, Capacity]]:
    return [
        (
            references,
            search_criterion(calibration, policy=Policy(), references=references).threshold,
            capacity(calibration, policy=Policy(), references=references),
        )
        for references in GALLERY_SIZES
    ]


def _print_verified(report: PackReport) -> None:
    for problem in report.problems:
        results.print(f"[red]{escape(problem)}[/]")
    for file in report.files:
        said = (
            "[green]as recorded[/]" if file.intact else "[red]missing[/]" if file.found is None else "[red]differs[/]"
        )
        results.print(f"{escape(file.file)}: {said}, SHA-256 {file.found or file.expected}", soft_wrap=True)
    if report.intact:
        results.print(f"{escape(report.pack.id)} is intact.")
    else:
        results.print(f"{escape(report.pack.id)} cannot be used. Make it anew: facepass models pull {report.pack.name}")


def _listed(status: PackStatus, size: int | None) -> dict[str, object]:
    pack = status.pack
    return {
        "pack": pack.id,
        "summary": pack.summary,
        "licences": sorted({part.weights.licence for part in pack.parts}),
        "commercial": pack.commercial,
        "training_data": pack.training_data.strip(),
        "state": status.state,
        "bytes": size,
        "warnings": status.warnings,
    }


def _verified(report: PackReport) -> dict[str, object]:
    return {
        "pack": report.pack.id,
        "intact": report.intact,
        "problems": report.problems,
        "files": [
            {"part": one.part, "file": one.file, "expected": one.expected, "found": one.found} for one in report.files
        ],
    }


def _described(status: PackStatus, calibration: Calibration | None) -> dict[str, object]:
    return {
        **_listed(status, None),
        "parts": [
            {
                "name": part.name,
                "kind": part.decoder,
                "file": part.weights.file,
                "source": _source(part),
                "sha256": part.weights.source_sha256,
                "converter": part.weights.converter,
                "licence": part.weights.licence,
                "licence_note": part.weights.licence_note,
                "preprocessing": _preprocessing(part),
            }
            for part in status.pack.parts
        ],
        "calibration": None
        if calibration is None
        else {
            "evidence": calibration.evidence,
            "thresholds": [{"target_fmr": target, "at": calibration.threshold_at(target)} for target in FMR_TARGETS],
            "capacity": [
                {"references": references, "threshold": threshold, "expected": expected}
                for references, threshold, expected in _capacities(calibration)
            ],
        },
    }
