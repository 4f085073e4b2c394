"""What each figure has to reach."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit that a figure must reach or must not pass."""

    limit: float
    at_least: bool

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def at_least(limit: float) -> Bar:
    return Bar(limit, at_least=True)


def at_most(limit: float) -> Bar:
    return Bar(limit, at_least=False)


BARS: Final = {
    "embedder.difference": at_most(1e-5),
    "embedder.speed": at_least(15.0),
    "verify.ratio": at_least(0.8),
    "verify.images": at_least(120.0),
    "latency.added": at_most(5.0),
    "search.mate_first": at_least(0.99),
    "search.p95_1000": at_most(25.0),
    "search.p95_10000": at_most(25.0),
    "search.p95_100000": at_most(25.0),
    "enrol.errors": at_most(0.0),
    "enrol.growth": at_most(0.05),
    "megapixels.other_answers": at_most(0.0),
    "megapixels.peak": at_most(1.2),
    "health.live": at_most(5.0),
    "health.ready": at_most(5.0),
    "start.ready": at_most(5.0),
    "accuracy.pairs_1e-03": at_least(0.97),
    "accuracy.pairs_1e-04": at_least(0.86),
    "accuracy.people_1e-03": at_least(0.94),
    "accuracy.people_1e-04": at_least(0.84),
    "accuracy.strangers": at_most(0.02),
    "accuracy.split_most": at_most(2.0),
    "accuracy.split_least": at_least(0.5),
}
"""By the row's name. A row that is not here is printed for its own sake."""
