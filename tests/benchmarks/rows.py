"""One line of the table."""

from dataclasses import dataclass

from tests.benchmarks.bars import BARS, Bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    """`<benchmark>.<figure>`, by which its bar is found."""
    what: str
    value: float | None
    """None where it could not be measured; `note` says why."""
    shown: str = "{:,.1f}"
    """How the value is written, its unit included; the bar is written the same way."""
    note: str = ""

    @property
    def bar(self) -> Bar | None:
        return BARS.get(self.name)

    @property
    def reached(self) -> bool | None:
        """None where there is no bar, or no figure."""
        return None if self.bar is None or self.value is None else self.bar.reached(self.value)

    @property
    def measured(self) -> str:
        return "not measured" if self.value is None else self.shown.format(self.value)

    @property
    def wanted(self) -> str:
        if self.bar is None:
            return ""
        return ("at least " if self.bar.at_least else "at most ") + self.shown.format(self.bar.limit)

    @property
    def verdict(self) -> str:
        return {True: "reached", False: "MISSED", None: ""}[self.reached]


def unmeasured(name: str, what: str, why: str) -> Row:
    return Row(name=name, what=what, value=None, note=why)
