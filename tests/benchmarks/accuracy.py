"""How well people are told apart: the figures of `facepass evaluate`."""

import asyncio

from adapters.packs.calibration import PackCalibrations
from adapters.system.clock import SystemClock
from application.use_cases.evaluation.embed_photographs import Photograph
from application.use_cases.evaluation.evaluate import Evaluate, Evaluation
from domain.gallery import DEFAULT_TARGET_FPIR
from tests.benchmarks.bench import NO_PHOTOGRAPHS, Bench
from tests.benchmarks.rows import Row, unmeasured

RATES = (1e-3, 1e-4)
SPLIT_AT = 1e-3


def accuracy(bench: Bench) -> list[Row]:
    if not bench.photos:
        return [unmeasured("accuracy.pairs_1e-03", "Accuracy on LFW", NO_PHOTOGRAPHS)]
    report = _evaluated(bench)
    return [*_verification(report), _strangers(report), *_split(report)]


def _evaluated(bench: Bench) -> Evaluation:
    evaluate = Evaluate(
        embedder=bench.remembering,
        calibrations=PackCalibrations(bench.models / "none", packs=bench.packs),
        clock=SystemClock(),
    )
    photographs = [Photograph(person=photo.person, name=photo.path.name, load=photo.read) for photo in bench.photos]

    def progress(done: int, total: int) -> None:
        if done % 1000 == 0 or done == total:
            bench.tell(f"{done:,} of {total:,} photographs")

    return asyncio.run(evaluate(photographs=photographs, source="LFW", progress=progress)).report


def _verification(report: Evaluation) -> list[Row]:
    points = {point.target: point for point in report.operating_points}
    rows = []
    for rate in RATES:
        point = points[rate]
        rows.append(
            Row(
                name=f"accuracy.pairs_{rate:.0e}",
                what=f"Recognised at one false match in {1 / rate:,.0f}, each pair the same",
                value=point.true_accept_rate,
                shown="{:.1%}",
                note=f"{report.evidence.people:,} people, {report.evidence.images:,} photographs of LFW, "
                f"{len(report.without_face)} without a face that was found count as not recognised",
            )
        )
        rows.append(
            Row(
                name=f"accuracy.people_{rate:.0e}",
                what="the same, each person the same",
                value=point.true_accept_rate_by_person,
                shown="{:.1%}",
                note=f"95 %: {point.true_accept_rate_by_person_low:.1%} to {point.true_accept_rate_by_person_high:.1%}",
            )
        )
    return rows


def _strangers(report: Evaluation) -> Row:
    trial = report.search
    assert trial is not None
    point = next(point for point in trial.points if point.target == DEFAULT_TARGET_FPIR)
    matched, missed = point.service_fpir, point.service_fnir
    what = f"{trial.strangers:,} strangers searched among {trial.gallery:,} people at the default target: matched"
    if matched is None or missed is None:
        return unmeasured("accuracy.strangers", what, "the pack's calibration does not reach so far")
    return Row(
        name="accuracy.strangers",
        what=what,
        value=matched.mean,
        shown="{:.2%}",
        note=f"{trial.draws} draws: {matched.least:.1%} to {matched.most:.1%}; "
        f"{missed.mean:.1%} of the enrolled are not matched at this threshold",
    )


def _split(report: Evaluation) -> list[Row]:
    split = next(split for split in report.split if split.target == SPLIT_AT)
    note = f"threshold set on half of the people, measured on the other half, {len(split.factors)} trials"
    what = f"Measured over stated false match rate at one in {1 / SPLIT_AT:,.0f}"
    return [
        Row(name="accuracy.split_most", what=f"{what}: largest", value=max(split.factors), shown="{:.2f}", note=note),
        Row(name="accuracy.split_least", what=f"{what}: smallest", value=min(split.factors), shown="{:.2f}", note=note),
    ]
