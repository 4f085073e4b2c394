"""Calibration curves as TOML: tables that people read, compare and keep under version control."""

import json
import os
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Final, final

import msgspec
from msgspec import Meta, Struct

from application.ports.calibrations import Calibrations
from application.ports.model_packs import ModelPacks
from domain.calibration import Calibration, CalibrationPoint, Evidence
from domain.embedding import EmbeddingSpace
from domain.errors import InvalidValue, PackCorrupt, PackUnavailable, PackUncalibrated, UnknownPack

_Count = Annotated[int, Meta(ge=0)]
_Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
_Cosine = Annotated[float, Meta(ge=-1.0, le=1.0)]

_COLUMNS: Final = "# similarity from, FMR, its 95 % interval, FNMR (each person counting the same)"


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The manifest's table `[calibration]`."""

    space: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """Digest of the space that it was measured in: a curve says nothing of any other."""
    source: Annotated[str, Meta(min_length=1)]
    people: _Count
    images: _Count
    genuine_pairs: _Count
    impostor_pairs: Annotated[int, Meta(ge=1)]
    measured_on: date
    points: list[tuple[_Cosine, _Rate, _Rate, _Rate, _Rate]]

    def to_domain(self) -> Calibration:
        return Calibration(
            points=tuple(
                CalibrationPoint(
                    threshold=threshold,
                    false_match_rate=rate,
                    false_match_rate_low=low,
                    false_match_rate_high=high,
                    false_non_match_rate=missed,
                )
                for threshold, rate, low, high, missed in self.points
            ),
            evidence=Evidence(
                source=self.source,
                people=self.people,
                images=self.images,
                genuine_pairs=self.genuine_pairs,
                impostor_pairs=self.impostor_pairs,
                measured_on=self.measured_on,
            ),
        )


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of its own."""

    calibration: _Table


def read_calibration(table: Mapping[str, object], *, space: EmbeddingSpace) -> Calibration:
    """Read a manifest's table.

    Raises:
        PackUncalibrated: it was measured in another space.
        PackCorrupt: it cannot be read; the message names the field.
    """
    try:
        return _checked(msgspec.convert(table, _Table), space)
    except (msgspec.ValidationError, InvalidValue) as error:
        raise PackCorrupt(f"the calibration of {space.model} cannot be used: {error}") from error


def write_calibration(calibration: Calibration, *, space: EmbeddingSpace) -> str:
    """Return the table as a manifest holds it: thresholds with five decimals, rates with five digits."""
    evidence = calibration.evidence
    rows = [
        f"    [{point.threshold:.5f}, {point.false_match_rate:.4e}, {point.false_match_rate_low:.4e},"
        f" {point.false_match_rate_high:.4e}, {point.false_non_match_rate:.4e}],"
        for point in calibration.points
    ]
    return "\n".join(
        [
            "[calibration]",
            f'space = "{space.digest}"',
            f"source = {_quoted(evidence.source)}",
            f"people = {evidence.people}",
            f"images = {evidence.images}",
            f"genuine_pairs = {evidence.genuine_pairs}",
            f"impostor_pairs = {evidence.impostor_pairs}",
            f"measured_on = {evidence.measured_on.isoformat()}",
            _COLUMNS,
            "points = [",
            *rows,
            "]",
            "",
        ]
    )


@final
class PackCalibrations(Calibrations):
    """The operator's curves in a folder, one file a space; behind them those of the manifests."""

    def __init__(self, folder: Path, *, packs: ModelPacks) -> None:
        """Touch nothing yet; `folder` is made with the first curve that is kept."""
        self._folder = folder
        self._packs = packs

    def of(self, space: EmbeddingSpace) -> Calibration:
        """The file is named by its space, so that a changed pack does not find the curve of its former self."""
        path = self._path(space)
        if path.exists():
            try:
                return _checked(msgspec.toml.decode(path.read_bytes(), type=_File).calibration, space)
            except (OSError, ValueError, InvalidValue) as error:  # msgspec's and tomllib's errors are ValueErrors
                raise PackCorrupt(f"the calibration {path} cannot be used: {error}") from error
        try:
            table = self._packs.get(space.model).calibration
        except UnknownPack:
            table = None
        if table is None:
            raise PackUncalibrated(
                f"{space.model} has no calibration, so no threshold follows from an error rate. "
                "Measure one on photographs of people of your own: facepass calibrate FOLDER --write"
            )
        return read_calibration(table, space=space)

    def keep(self, calibration: Calibration, *, space: EmbeddingSpace) -> str:
        """Written beside and renamed, so that a start never reads half of one."""
        path = self._path(space)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False, encoding="utf-8") as file:
                file.write(self.written(calibration, space=space))
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError as error:
            raise PackUnavailable(f"the calibration could not be kept in {self._folder}: {error}") from error
        return str(path)

    def written(self, calibration: Calibration, *, space: EmbeddingSpace) -> str:
        """As a manifest's table, to be pasted there or kept by itself."""
        return write_calibration(calibration, space=space)

    def _path(self, space: EmbeddingSpace) -> Path:
        return self._folder / f"{space.model}-{space.digest[:12]}.toml"


def _checked(table: _Table, space: EmbeddingSpace) -> Calibration:
    if table.space != space.digest:
        raise PackUncalibrated(
            f"the calibration of {space.model} was measured in another embedding space ({table.space[:12]}, not "
            f"{space.digest[:12]}): a model file or its preprocessing has changed since. "
            "Measure anew: facepass calibrate FOLDER --write"
        )
    return table.to_domain()


def _quoted(text: str) -> str:
    # A JSON string is a TOML string but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
