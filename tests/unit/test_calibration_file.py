import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.packs.calibration import PackCalibrations, read_calibration, write_calibration
from adapters.packs.manifest import read_manifest
from application.ports.model_packs import ModelPacks, Progress
from domain.calibration import Calibration, CalibrationPoint, Evidence
from domain.embedding import EmbeddingSpace
from domain.errors import PackCorrupt, PackUnavailable, PackUncalibrated, UnknownPack
from domain.model_pack import ModelPack, PackReport, PackStatus

SPACE = EmbeddingSpace(model="made-up@1", digest="ab" * 32, dimension=4)
OTHER = replace(SPACE, digest="cd" * 32)
MANIFESTS = Path(__file__).parents[2] / "adapters" / "packs"


def measured(source: str = "twelve colleagues", *, first: float = 0.3) -> Calibration:
    return Calibration(
        points=tuple(
            CalibrationPoint(
                threshold=threshold,
                false_match_rate=rate,
                false_match_rate_low=rate / 2,
                false_match_rate_high=rate * 2,
                false_non_match_rate=missed,
            )
            for threshold, rate, missed in ((first, 0.0123456, 0.0), (0.5, 0.00123456, 0.01), (0.61234, 7.7e-7, 0.5))
        ),
        evidence=Evidence(
            source=source,
            people=12,
            images=40,
            genuine_pairs=50,
            impostor_pairs=40_000_000,
            measured_on=date(2026, 2, 28),
        ),
    )


class OnePack(ModelPacks):
    """A registry with a single pack, which need not be there."""

    def __init__(self, table: Mapping[str, object] | None) -> None:
        self._pack = ModelPack(name="made-up", version=1, summary="", training_data="", parts=(), calibration=table)

    def get(self, name: str) -> ModelPack:
        if name != self._pack.id:
            raise UnknownPack(name)
        return self._pack

    def listed(self) -> Sequence[PackStatus]:
        return ()

    def pull(self, name: str, progress: Progress) -> PackStatus:  # noqa: ARG002 - the port's signature
        raise UnknownPack(name)

    def verify(self, name: str) -> PackReport:
        raise UnknownPack(name)

    def files(self, name: str) -> Mapping[str, Path]:
        raise UnknownPack(name)


def table_of(calibration: Calibration, space: EmbeddingSpace = SPACE) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads(write_calibration(calibration, space=space))["calibration"]
    return table


def same(one: Calibration, other: Calibration) -> bool:
    def numbers(calibration: Calibration) -> list[float]:
        return [
            number
            for point in calibration.points
            for number in (
                point.threshold,
                point.false_match_rate,
                point.false_match_rate_low,
                point.false_match_rate_high,
                point.false_non_match_rate,
            )
        ]

    return one.evidence == other.evidence and numbers(one) == pytest.approx(numbers(other), rel=1e-4)


def test_what_was_written_is_read_again() -> None:
    assert same(read_calibration(table_of(measured()), space=SPACE), measured())


def test_thresholds_are_written_to_the_last_digit() -> None:
    again = read_calibration(table_of(measured()), space=SPACE)
    assert [point.threshold for point in again.points] == [0.3, 0.5, 0.61234]


@given(source=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_source_survives(source: str) -> None:
    assert read_calibration(table_of(measured(source)), space=SPACE).evidence.source == source


def test_a_curve_of_another_space_is_refused() -> None:
    with pytest.raises(PackUncalibrated, match="another embedding space"):
        read_calibration(table_of(measured(), OTHER), space=SPACE)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"points": [[0.1, 0.5, 0.4, 0.6, 0.0], [0.2, 0.6, 0.5, 0.7, 0.0]]}, "descend"),
        ({"points": [[0.1, 0.5, 0.4, 0.6, 0.0]]}, "two points"),
        ({"points": [[0.1, 0.5], [0.2, 0.1]]}, r"points\[0\]|points\[\.\.\.\]"),
        ({"points": [[2.0, 0.5, 0.4, 0.6, 0.0], [3.0, 0.1, 0.1, 0.1, 0.0]]}, "points"),
        ({"people": "many"}, "people"),
        ({"surprise": 1}, "surprise"),
        ({"space": "short"}, "space"),
        ({"measured_on": "yesterday"}, "measured_on"),
    ],
)
def test_a_table_that_cannot_be_right_says_where(change: Mapping[str, object], named: str) -> None:
    with pytest.raises(PackCorrupt, match=named):
        read_calibration({**table_of(measured()), **change}, space=SPACE)


def test_a_space_without_a_curve_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(PackUncalibrated, match="facepass calibrate"):
        PackCalibrations(tmp_path, packs=OnePack(None)).of(SPACE)


def test_a_space_of_no_pack_can_be_calibrated_too(tmp_path: Path) -> None:
    foreign = replace(SPACE, model="theirs@3")
    calibrations = PackCalibrations(tmp_path, packs=OnePack(None))
    with pytest.raises(PackUncalibrated):
        calibrations.of(foreign)
    calibrations.keep(measured(), space=foreign)
    assert same(calibrations.of(foreign), measured())


def test_the_operators_own_curve_goes_before_the_packs(tmp_path: Path) -> None:
    calibrations = PackCalibrations(tmp_path / "new", packs=OnePack(table_of(measured("the pack's"))))
    assert calibrations.of(SPACE).evidence.source == "the pack's"
    calibrations.keep(measured("my own"), space=SPACE)
    assert calibrations.of(SPACE).evidence.source == "my own"
    calibrations.keep(measured("my newer one"), space=SPACE)
    assert calibrations.of(SPACE).evidence.source == "my newer one"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_an_operators_curve_is_of_one_space_alone(tmp_path: Path) -> None:
    calibrations = PackCalibrations(tmp_path, packs=OnePack(table_of(measured("the pack's"), OTHER)))
    calibrations.keep(measured("my own"), space=SPACE)
    assert calibrations.of(OTHER).evidence.source == "the pack's"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    calibrations = PackCalibrations(tmp_path, packs=OnePack(None))
    path = Path(calibrations.keep(measured(), space=SPACE))
    path.write_text(path.read_text()[:200])
    with pytest.raises(PackCorrupt, match=path.name):
        calibrations.of(SPACE)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(PackUnavailable, match="could not be kept"):
        PackCalibrations(blocked, packs=OnePack(None)).keep(measured(), space=SPACE)


def test_the_curves_that_ship_belong_to_their_packs() -> None:
    packs = [read_manifest(path) for path in sorted(MANIFESTS.glob("*.toml"))]
    curves = {
        pack.name: read_calibration(pack.calibration, space=pack.space)
        for pack in packs
        if pack.calibration is not None and pack.space is not None
    }
    assert "open" in curves
    assert all(curve.smallest_rate < 1e-5 for curve in curves.values())
