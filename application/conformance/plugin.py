"""The kit as a command runs it: against one adapter that somebody else opens, told promise by promise.

Whoever tests an adapter of their own needs none of this: they subclass the contract of their port.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, Literal, Protocol

import pytest

from application.conformance import EXPLAINED

Open = Callable[[str], AbstractAsyncContextManager[Any]]
"""Opens the adapter in a place that nobody else uses, named with a-z, 0-9 and '-', up to 32 characters.

Opened twice with one name it is the same storage or queue. An adapter whose data lie apart by themselves, as an
index's do by gallery, has no use for the name.
"""

Outcome = Literal["passed", "failed", "not_tried"]

_SUITE: Final = Path(__file__).with_name("suite.py")

_ARGUMENTS: Final = (
    # No configuration but this one, wherever the command is called.
    f"--rootdir={_SUITE.parent}",
    f"--config-file={os.devnull}",
    "--noconftest",
    "--import-mode=importlib",
    "--override-ini=asyncio_mode=auto",
    "--override-ini=asyncio_default_fixture_loop_scope=session",
    "--override-ini=asyncio_default_test_loop_scope=session",
    "-pno:cacheprovider",
    "-ppytest_asyncio.plugin",
)

_STAGES: Final = {"setup": "while it was opened", "teardown": "while it was cleaned up behind"}

_LONGEST: Final = 20_000
"""Characters of a failure's details."""


class Audience(Protocol):
    """Who is told. A promise is a test of the contract, all its cases together, as a sentence."""

    def collected(self, promises: Sequence[str]) -> None:
        """Take all that will be tried, in order."""

    def began(self, promise: str) -> None:
        """Take the one that is tried now."""

    def ended(self, promise: str, outcome: Outcome, reason: str, details: str) -> None:
        """Take what became of it; `reason` is one line, `details` all that pytest says of a failure."""


def run(contract: str, opened: Callable[[], AbstractAsyncContextManager[Open]], audience: Audience) -> None:
    """Run a contract in this process, which should have no other plugins (`PYTEST_DISABLE_PLUGIN_AUTOLOAD=1`).

    Args:
        contract: the name of its module: `vector_index`.
        opened: what is open as long as the kit runs, a server's connections say, and yields what opens the adapter.
        audience: told in this thread.

    Raises:
        Exception: what opening the adapter raises; nothing is tried then.
    """
    test = "Test" + contract.title().replace("_", "")
    kit = Kit(opened, audience)
    pytest.main([*_ARGUMENTS, f"{_SUITE}::{test}"], plugins=[kit])
    if kit.refusal is not None:
        raise kit.refusal


class Kit:
    """A pytest plugin: the fixtures that `suite.py` is filled from, and who is told what became of each promise."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Open]], audience: Audience) -> None:
        """Take what opens the adapter, and who is told."""
        self._opened = opened
        self._audience = audience
        self._run = token_hex(4)
        self._numbers = count()
        self._reports: list[pytest.TestReport] = []
        self.refusal: Exception | None = None
        """Why the adapter could not be opened."""

    def pytest_sessionstart(self) -> None:
        """Open the adapter once: what cannot be opened is one reason, and not one for every promise."""
        pytest.register_assert_rewrite(*EXPLAINED)  # again, for the first time was before pytest began
        try:
            asyncio.run(self._rehearsed())
        except Exception as error:  # noqa: BLE001 - handed on by `run`
            self.refusal = error
            pytest.exit("the adapter cannot be opened")

    async def _rehearsed(self) -> None:
        async with self._opened() as opened, opened(f"conformance-{self._run}"):
            pass

    @pytest.fixture(scope="session")
    async def opened(self) -> AsyncIterator[Open]:
        """Yield what opens the adapter under test."""
        async with self._opened() as opened:
            yield opened

    @pytest.fixture
    def place(self) -> str:
        """Return a name that nobody had before."""
        return f"conformance-{self._run}-{next(self._numbers)}"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell what will be tried."""
        self._audience.collected(list(dict.fromkeys(map(_promise, session.items))))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """Put the cases of one promise together: they run one after the other."""
        promise = _promise(item)
        if not self._reports:
            self._audience.began(promise)
        done = yield
        if nextitem is None or _promise(nextitem) != promise:
            self._audience.ended(promise, *_summed_up(self._reports))
            self._reports.clear()
        return done

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what became of a case while it was set up, run and taken down."""
        self._reports.append(report)


def _promise(item: pytest.Item) -> str:
    """Return a test's name as a sentence: `test_upsert_twice_keeps_one[case]` is "upsert twice keeps one"."""
    return item.name.partition("[")[0].removeprefix("test_").replace("_", " ")


def _summed_up(reports: Sequence[pytest.TestReport]) -> tuple[Outcome, str, str]:
    failed = [report for report in reports if report.failed]
    skipped = [report for report in reports if report.skipped]
    ran = [report for report in reports if report.when == "call" and not report.skipped]
    if failed:
        return "failed", _reason(failed[0]), failed[0].longreprtext[-_LONGEST:]
    if skipped and not ran:
        return "not_tried", _why_skipped(skipped[0]), ""
    return "passed", "", ""


def _reason(report: pytest.TestReport) -> str:
    """Return one line: what was raised, and in which case of several and at which stage where that is not plain."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (report.longreprtext if crash is None else crash.message).strip().splitlines() or ["no reason given"]
    case = report.nodeid.partition("[")[2].rstrip("]")
    stage = _STAGES.get(report.when, "")
    where = ", ".join(part for part in (case, stage) if part)
    reason = str(lines[0]).removeprefix("AssertionError: ")
    return f"{where}: {reason}" if where else reason


def _why_skipped(report: pytest.TestReport) -> str:
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return str(said).removeprefix("Skipped: ")
