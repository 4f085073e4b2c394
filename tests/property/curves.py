"""Calibration curves as a measurement could give them."""

from datetime import date
from itertools import accumulate

from hypothesis import strategies as st

from domain.calibration import Calibration, CalibrationPoint, Evidence

LARGEST_GALLERY = 10_000_000
references = st.integers(1, LARGEST_GALLERY)
similarities = st.floats(-1.0, 1.0)


@st.composite
def rates(draw: st.DrawFn) -> float:
    """An error rate that somebody may ask for, as likely of any order of magnitude."""
    return float(10.0 ** draw(st.floats(-9.0, -0.01)))


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    """From two points to many, steep and flat stretches, from scant data to more than the curve shows."""
    size = draw(st.integers(2, 12))
    steps = draw(st.lists(st.floats(1e-6, 0.15), min_size=size - 1, max_size=size - 1))
    drops = draw(st.lists(st.floats(1e-3, 2.0), min_size=size - 1, max_size=size - 1))
    rises = draw(st.lists(st.floats(0.0, 0.08), min_size=size, max_size=size))
    thresholds = list(accumulate(steps, initial=draw(st.floats(-0.9, -0.7))))
    powers = list(accumulate(drops, lambda power, drop: power - drop, initial=draw(st.floats(-1.0, 0.0))))
    width = draw(st.floats(0.0, 0.5))
    points = tuple(
        CalibrationPoint(
            threshold=threshold,
            false_match_rate=10.0**power,
            false_match_rate_low=10.0**power * (1 - width),
            false_match_rate_high=10.0**power * (1 + width),
            false_non_match_rate=missed,
        )
        for threshold, power, missed in zip(thresholds, powers, accumulate(rises), strict=True)
    )
    return Calibration(
        points=points,
        evidence=Evidence(
            source="made up",
            people=100,
            images=400,
            genuine_pairs=600,
            impostor_pairs=draw(st.integers(1, 10**10) | st.sampled_from([30, 31, 3000, 300_000])),
            measured_on=date(2026, 1, 1),
        ),
    )
