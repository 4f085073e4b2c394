"""Decisions, rates and sizes as people say them."""

from rich.markup import escape

from application.ports.record import SealedTemplate
from domain.decision import Capacity, Criterion, Decision, DecisionReason, Outcome, TargetKind, ThresholdSource
from domain.quality import Quality
from entrypoints.http.shapes import CapacityShape

MATCH, NO_MATCH, UNCERTAIN = 0, 10, 11
"""Exit status by decision."""

STATUS = {Outcome.MATCH: MATCH, Outcome.NO_MATCH: NO_MATCH, Outcome.UNCERTAIN: UNCERTAIN}
STATUS_HELP = "Exit status: 0 match, 10 no match, 11 uncertain, 1 an error, 2 a wrong call."

OUTCOMES = {Outcome.MATCH: "match", Outcome.NO_MATCH: "no match", Outcome.UNCERTAIN: "uncertain"}
STYLES = {Outcome.MATCH: "green", Outcome.NO_MATCH: "red", Outcome.UNCERTAIN: "yellow"}

REASONS = {
    DecisionReason.BETWEEN_THRESHOLDS: "more alike than most strangers are, not alike enough for the target",
    DecisionReason.BELOW_SEARCH_THRESHOLD: "enough for a verification; among this many people, strangers reach it too",
    DecisionReason.BEYOND_CALIBRATION: "the pack was not measured far enough to promise the target",
}

_SOURCES = {
    ThresholdSource.REQUEST: "asked for",
    ThresholdSource.GALLERY: "the gallery's policy",
    ThresholdSource.PACK: "the pack's calibration",
}
_TARGETS = {
    TargetKind.FMR: "false match in {} verifications of impostors",
    TargetKind.FPIR: "false positive in {} searches of strangers",
}


def decision_text(decision: Decision) -> str:
    """Return a decision with its reasons, as rich's markup."""
    reasons = "; ".join(REASONS[reason] for reason in decision.reasons)
    style = STYLES[decision.outcome]
    return f"[bold {style}]{OUTCOMES[decision.outcome]}[/]" + (f": {reasons}" if reasons else "")


def threshold_text(criterion: Criterion) -> str:
    """Return a threshold and where it came from."""
    source = _SOURCES[criterion.source]
    if criterion.target is not None:
        source += f": one {_TARGETS[criterion.target.kind].format(one_in(criterion.target.value))}"
    return f"{'none' if criterion.threshold is None else format(criterion.threshold, '.4f')} ({source})"


def quality_text(quality: Quality) -> str:
    """Return a quality with what lowers it."""
    reasons = ", ".join(reason.value.replace("_", " ") for reason in quality.reasons)
    return f"{quality.score:.2f}" + (f" ({reasons})" if reasons else "")


def person_text(template: SealedTemplate) -> str:
    """Return who it is, as rich's markup: by `external_id`, or by id where there is none."""
    return escape(str(template.person) if template.external_id is None else template.external_id)


def capacity_text(capacity: Capacity | CapacityShape) -> str:
    """Return what to expect of searches in a gallery, as rich's markup."""
    size = f"{capacity.references:,} reference{'' if capacity.references == 1 else 's'}"
    if capacity.expected_fnir is None:
        return f"{size}: [yellow]the pack was not measured that far; expect searches to miss.[/] Use a stronger pack."
    missed = f"about {capacity.expected_fnir:.1%} of searches for an enrolled person (one reference each) miss"
    if capacity.outgrown:
        return f"{size}: [yellow]the gallery has outgrown its pack[/]; {missed}. Use a stronger pack."
    return f"{size}: the pack is good enough for this gallery; {missed}."


def one_in(rate: float) -> str:
    """Return the n of *one in n*, to three digits."""
    number = 1 / rate
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 10 else f"{number:.2g}"  # noqa: PLR2004 - one in 1.5 has a point


def size_text(size: int) -> str:
    """Return bytes as MB, by thousands, as file managers do."""
    return f"{size / 1_000_000:.1f} MB"
