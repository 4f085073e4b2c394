"""One adapter held to the contract of its port: by a process of its own, which may hang or die, and be said to have."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import IO, Final, Literal, TypeAlias

import msgspec

from entrypoints.settings import Settings, process_environment
from entrypoints.wiring.adapters import (
    BUILDER,
    BUILT_IN,
    Adapter,
    Port,
    chosen,
    installed,
    require_one_owner,
    third_party,
)
from entrypoints.wiring.start_error import StartError

TRIAL: Final = "entrypoints.wiring.trial"
"""The module that is the other process: `python -m entrypoints.wiring.trial PORT NAME`."""

LONGEST: Final = 300.0
"""Seconds after which a promise that has not ended is taken for one that never will."""

_FAREWELL: Final = 30.0
"""Seconds for cleaning up behind a kit that is interrupted."""

_LAST_WORDS: Final = 2_000

Outcome = Literal["passed", "failed", "not_tried"]


class Promise(msgspec.Struct, frozen=True, kw_only=True, tag="promise"):
    """What became of one."""

    promise: str
    """A sentence."""
    outcome: Outcome
    reason: str
    """One line; empty where it passed."""
    details: str = ""
    """Of a failure: where it happened, and what was expected."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all."""

    port: Port
    adapter: str
    promises: Sequence[Promise]

    def count(self, outcome: Outcome) -> int:
        """Return how many ended so."""
        return sum(one.outcome == outcome for one in self.promises)

    @property
    def kept(self) -> bool:
        """Whether none failed, and there were some to try."""
        return self.count("passed") > 0 and self.count("failed") == 0


class Collected(msgspec.Struct, frozen=True, tag="collected"):
    """What will be tried."""

    promises: Sequence[str]


class Began(msgspec.Struct, frozen=True, tag="began"):
    """What is tried now."""

    promise: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Why nothing is tried."""

    reason: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """All was tried."""


Event: TypeAlias = Collected | Began | Promise
_EVENTS: Final = msgspec.json.Decoder(Collected | Began | Promise | Refused | Done)


_NEEDS: Final = {"insightface": "insightface", "qdrant": "qdrant_client", "redis": "arq", "s3": "aioboto3"}
"""A package by which each extra is known to be there."""


def listed(settings: Settings) -> Sequence[tuple[Adapter, str]]:
    """Return every adapter, and those that are chosen and not there; each with what is wrong with it, or nothing.

    Unlike `installed` this loads the factories of others' adapters: whether one can be loaded is seen no other way.
    """
    found = list(installed(settings))
    there = {(one.port, one.name) for one in found}
    found += [
        Adapter(port=port, name=name, owner="", chosen=True)
        for port in Port
        for name in sorted(chosen(settings, port))
        if (port, name) not in there
    ]
    return [(one, _trouble(one)) for one in sorted(found, key=lambda one: list(Port).index(one.port))]


def _trouble(adapter: Adapter) -> str:
    try:
        require_one_owner(adapter.port, adapter.name)
        if adapter.owner != BUILDER:
            third_party(adapter.port, adapter.name)
    except StartError as error:
        return str(error).removeprefix(f"{adapter.port.setting}: ")
    extra = BUILT_IN[adapter.port].get(adapter.name)
    if extra is not None and find_spec(_NEEDS[extra]) is None:
        return f"needs packages that are not installed: pip install 'facepass[{extra}]'"
    return ""


async def check(port: Port, name: str, *, heard: Callable[[Event], None], longest: float = LONGEST) -> Report:
    """Hold an adapter to its contract, opened with its settings.

    Args:
        port: whose contract it is.
        name: the adapter's.
        heard: told what happens, as it happens.
        longest: seconds for one promise.

    Raises:
        StartError: the kit's packages are missing, or the adapter cannot be opened.
    """
    _require_kit()
    trial = _Trial(heard)
    with tempfile.TemporaryFile() as errors:
        async with _process(port, name, errors) as process:
            end = await _listened(process, trial, longest)
        if isinstance(end, Refused):
            raise StartError(end.reason)
        if isinstance(end, str):
            trial.broke_off(end, _last_words(errors))
    return Report(port=port, adapter=name, promises=trial.promises)


class _Trial:
    """Puts together what is heard of the other process."""

    def __init__(self, heard: Callable[[Event], None]) -> None:
        self.promises: list[Promise] = []
        self._heard = heard
        self._expected: Sequence[str] = ()

    def hears(self, event: Event) -> None:
        if isinstance(event, Collected):
            self._expected = event.promises
        elif isinstance(event, Promise):
            self.promises.append(event)
        self._heard(event)

    def broke_off(self, reason: str, details: str) -> None:
        """Take the promise that was being tried for broken, and those behind it for not tried."""
        if not self._expected:
            raise StartError(f"the kit's process {reason} before anything was tried: {details or 'no reason given'}")
        left = self._expected[len(self.promises) :]
        for promise in left[:1]:
            self.hears(Promise(promise=promise, outcome="failed", reason=f"the process {reason}", details=details))
        for promise in left[1:]:
            self.hears(Promise(promise=promise, outcome="not_tried", reason=f"the process {reason} before this"))


def _require_kit() -> None:
    missing = [name for name in ("pytest", "pytest_asyncio") if find_spec(name) is None]
    if missing:
        raise StartError(
            f"the kit needs packages that are not installed ({', '.join(missing)}): pip install 'facepass[conformance]'"
        )


@asynccontextmanager
async def _process(port: Port, name: str, errors: IO[bytes]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the other process, and let none live on behind the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # what lies in the folder where the command is called is no package of ours
        "-m",
        TRIAL,
        port.value,
        name,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=_without_pytests_own(process_environment()),
        limit=2**24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(_FAREWELL):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _without_pytests_own(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


async def _listened(process: asyncio.subprocess.Process, trial: _Trial, longest: float) -> Refused | Done | str:
    """Hear it to its end, or return in words how it broke off."""
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    while True:
        try:
            # Not wait_for: up to Python 3.11 it forgets a cancellation that meets a line.
            async with asyncio.timeout(longest):
                line = await process.stdout.readline()
        except TimeoutError:
            process.kill()
            return f"did not end within {longest:g} seconds"
        if not line:
            return f"died ({_status(await process.wait())})"
        event = _EVENTS.decode(line)
        if isinstance(event, Refused | Done):
            return event
        trial.hears(event)


def _status(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def _last_words(errors: IO[bytes]) -> str:
    """Return the end of what it wrote to its standard error."""
    errors.seek(0)
    return errors.read().decode(errors="replace").strip()[-_LAST_WORDS:]
