"""Pictures of an evaluation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from application.use_cases.evaluation.evaluate import Evaluation, MeasuredEvaluation
from domain.calibration import CalibrationPoint
from domain.evaluation import STEPS, Scores

_INK, _GENUINE, _IMPOSTOR, _MARK = "#1f2933", "#1a7f5a", "#c2410c", "#334e68"
_BARS = 160
_FMR_TICKS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)
_FNMR_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
_STYLE = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "font.size": 10,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(evaluation: MeasuredEvaluation, folder: Path) -> list[Path]:
    """Write the pictures that the figures allow into `folder`, which is there, and return their paths."""
    drawings: list[tuple[str, Callable[[Axes], None]]] = []
    if evaluation.report.evidence.genuine_pairs:
        drawings.append(("scores.png", lambda axes: _scores(axes, evaluation)))
    if len(evaluation.report.curve) > 1 and evaluation.report.evidence.genuine_pairs:
        drawings.append(("det.png", lambda axes: _det(axes, evaluation.report)))
    return [_drawn(folder / name, drawing) for name, drawing in drawings]


def _drawn(path: Path, drawing: Callable[[Axes], None]) -> Path:
    # A figure of its own and no pyplot: nothing global, no window, whatever the machine has.
    with style.context(_STYLE):
        figure = Figure(figsize=(9, 5.4), layout="constrained")
        drawing(figure.subplots())
        figure.savefig(path, dpi=160)
    return path


def _scores(axes: Axes, evaluation: MeasuredEvaluation) -> None:
    report, scores = evaluation.report, evaluation.scores
    first, last = _range(scores)
    edges = np.linspace(first, last, _BARS + 1).round().astype(np.int64)
    for counts, colour, label in (
        (scores.impostor, _IMPOSTOR, f"different people ({report.evidence.impostor_pairs:,} pairs)"),
        (scores.genuine, _GENUINE, f"the same person ({report.evidence.genuine_pairs:,} pairs)"),
    ):
        shares = np.add.reduceat(counts, edges[:-1]) / max(1, counts.sum())
        axes.stairs(shares * 100, edges / STEPS - 1.0, color=colour, fill=True, alpha=0.35)
        axes.stairs(shares * 100, edges / STEPS - 1.0, color=colour, linewidth=1.4, label=label)
    top = axes.get_ylim()[1] * 1.25
    axes.set_ylim(0, top)
    for place, point in enumerate(report.operating_points):
        axes.axvline(point.threshold, color=_MARK, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"FMR {point.target:g}: {point.threshold:.3f}",
            (point.threshold, top * (0.98 - 0.06 * place)),
            xytext=(4, 0),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=_MARK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    axes.set_title(f"How alike photographs look to {report.model}")
    axes.set_xlabel("similarity (cosine; not a probability)")
    axes.set_ylabel("share of pairs in a bar, %")
    axes.legend(loc="upper left", frameon=False)


def _range(scores: Scores) -> tuple[int, int]:
    """The stretch of the grid in which all but a hair of both kinds of pairs lie."""
    both = [np.cumsum(counts) / max(1, counts.sum()) for counts in (scores.impostor, scores.genuine)]
    first = min(int(np.argmax(shares >= 1e-4)) for shares in both)  # noqa: PLR2004 - beyond it no bar is visible
    last = max(int(np.argmax(shares >= 1 - 1e-4)) for shares in both)
    return first, max(last, first + _BARS)


def _det(axes: Axes, report: Evaluation) -> None:
    points = [point for point in report.curve if 0.0 < point.false_non_match_rate < 1.0] or list(report.curve)
    missed = _deviates([point.false_non_match_rate for point in points])
    axes.fill_betweenx(
        missed,
        _deviates([point.false_match_rate_low for point in points]),
        _deviates([point.false_match_rate_high for point in points]),
        color=_MARK,
        alpha=0.18,
        linewidth=0,
        label="95 % confidence of the FMR",
    )
    axes.plot(_deviates([point.false_match_rate for point in points]), missed, color=_MARK, linewidth=1.8)
    for point in report.operating_points:
        _mark(axes, points, point.target, point.threshold)
    _ticks(axes, points)
    axes.grid(color=_INK, alpha=0.12)
    axes.set_title(f"What fewer false matches cost: {report.model}")
    axes.set_xlabel("false match rate (FMR): strangers taken for one another")
    axes.set_ylabel("false non-match rate (FNMR): people not\nrecognised, each person counting the same")
    axes.legend(loc="upper right", frameon=False)


def _mark(axes: Axes, points: Sequence[CalibrationPoint], target: float, threshold: float) -> None:
    logs = [-np.log(point.false_match_rate) for point in points]
    missed = float(np.interp(-np.log(target), logs, [point.false_non_match_rate for point in points]))
    place = (_deviates([target])[0], _deviates([missed])[0])
    axes.plot(*place, marker="o", color=_IMPOSTOR)
    axes.annotate(
        f"similarity ≥ {threshold:.3f}\nFMR {target:g}, FNMR {missed:.1%}",
        place,
        xytext=(8, 6),
        textcoords="offset points",
        fontsize=9,
    )


def _ticks(axes: Axes, points: Sequence[CalibrationPoint]) -> None:
    matched = [rate for point in points for rate in (point.false_match_rate_low, point.false_match_rate_high)]
    missed = [point.false_non_match_rate for point in points]
    for axis, ticks, rates, limit in (
        (axes.xaxis, _FMR_TICKS, matched, axes.set_xlim),
        (axes.yaxis, _FNMR_TICKS, missed, axes.set_ylim),
    ):
        low, high = max(min(rates), ticks[0] / 2), min(max(rates), ticks[-1])
        limit(_deviates([low])[0] - 0.1, _deviates([max(high, low * 2)])[0] + 0.25)
        axis.set_major_locator(FixedLocator(_deviates(ticks).tolist()))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{NormalDist().cdf(value):.1g}"))
        axis.set_minor_locator(NullLocator())


def _deviates(rates: Sequence[float]) -> NDArray[np.float64]:
    """Normal deviates, on which normal scores give a straight line (Martin et al. 1997, *The DET curve*)."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(min(max(rate, 1e-9), 1 - 1e-9)) for rate in rates])
