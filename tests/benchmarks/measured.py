"""What one backend showed, beside the default one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

SHOWN_WHOLE: Final = 10.0
"""From so many times on decimals say nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    what: str
    shown: str
    """How a value is written, its unit included."""
    compared: bool = True
    """Whether how many times the default's it is means anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One column of the table."""

    backend: str
    figures: Mapping[str, float]
    """By the figure's name; what is not there could not be known."""
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """All backends of one port, the default first."""

    port: str
    figures: Sequence[Figure]
    backends: Sequence[Measured]

    def cell(self, figure: Figure, backend: Measured) -> str:
        value, default = backend.figures.get(figure.name), self.backends[0].figures.get(figure.name)
        if value is None:
            return "not known"
        written = figure.shown.format(value)
        if backend is self.backends[0] or not figure.compared or not default:
            return written
        times = value / default
        return f"{written} ({times:{',.0f' if times >= SHOWN_WHOLE else '.2g'}} x)"


@dataclass(frozen=True, slots=True)
class Progress:
    """Says how far it has come, from whichever process."""

    began: float
    """As `time.monotonic()` has it, which all processes of a machine share."""
    where: str = ""

    def of(self, where: str) -> "Progress":
        return Progress(self.began, where)

    def __call__(self, what: str) -> None:
        Console(stderr=True).print(f"{time.monotonic() - self.began:5.0f} s  {self.where}: {what}", highlight=False)


def megabytes(folder: Path) -> float:
    """Return what the files of a folder hold."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
