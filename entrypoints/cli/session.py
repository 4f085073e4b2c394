"""What every command does: read settings, open the container, run, and say errors in one line."""

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, Self, TypeVar

import click
import msgspec
from dishka import AsyncContainer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from application.use_cases.audit.origin import CLI, set_origin
from domain.errors import FacepassError
from entrypoints.logs import configure_logs
from entrypoints.settings import Settings, SettingsError, read_settings
from entrypoints.wiring.start_error import StartError, in_words

T = TypeVar("T")
P = ParamSpec("P")

FAILED = 1
"""Exit status of a command that could not do its work; 2 is click's for a wrong call."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells count it."""

PIPED_WIDTH = 120
"""Columns where there is no terminal to ask."""

WIDE = 240
"""The same, for tables whose ids are to be copied."""

_DEBUGGING = "facepass.debugging"

console = Console(stderr=True, highlight=False)
"""Where progress and remarks go: standard output is for results alone."""

results = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
"""Where results for people go; those for programs are printed by `print_json`."""


class CommandFailed(click.ClickException):
    """An error as the command line shows it: one line, the stable code at its end, status 1."""

    exit_code = FAILED

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print it to standard error."""
        console.print(f"[red]facepass:[/red] {escape(self.message)}", soft_wrap=True)


def print_json(value: object) -> None:
    """Print a result for programs."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)))


def print_wide(table: Table) -> None:
    """Print a table with ids: whole ones where there is no terminal, since scripts and people copy them from there."""
    results.print(table, width=None if results.is_terminal else WIDE)


def settings_of_process() -> Settings:
    """Read the settings and set up the log. Raises `CommandFailed` that names the wrong one."""
    try:
        settings = read_settings()
    except SettingsError as error:
        raise CommandFailed(str(error)) from error
    context = click.get_current_context(silent=True)
    if context is not None:
        if context.find_root().params.get("debug"):
            settings = msgspec.structs.replace(settings, log_level="debug")
        context.meta[_DEBUGGING] = settings.log_level == "debug"
    configure_logs(settings)
    return settings


@asynccontextmanager
async def session(settings: Settings | None = None) -> AsyncIterator[AsyncContainer]:
    """Open the container for one command, with a progress bar where a model pack has to be built first."""
    from entrypoints.wiring.startup import opened  # noqa: PLC0415 - seconds of libraries that a check never needs

    set_origin(CLI)
    with PullProgress() as progress:
        async with opened(settings or settings_of_process(), progress=progress) as container:
            yield container


def run(work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a command's work on an event loop of its own; whatever goes wrong ends as `CommandFailed`."""

    async def main() -> T:
        return await work(*args, **kwargs)

    try:
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            return runner.run(main())
    except click.ClickException:
        raise
    except FacepassError as error:
        raise _failed(in_words(error)) from error
    except StartError as error:
        raise _failed(str(error)) from error
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        advice = "" if _debugging() else "; facepass --debug ... shows where"
        raise _failed(f"unexpected {type(error).__name__}: {error}{advice}") from error


def _failed(message: str) -> CommandFailed:
    if _debugging():
        traceback.print_exc()
    return CommandFailed(message)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop, None where it is not to be had (Windows): the service runs on the standard one then."""
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


def _debugging() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_DEBUGGING))


class PullProgress:
    """A progress bar that appears with the first piece of work on a model pack, and not before."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
        )
        self._stage: str | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show how far `stage` is, in bytes."""
        if self._task is None:
            self._bar.start()
        if stage != self._stage or self._task is None:
            self._stage, self._task = stage, self._bar.add_task(stage, total=total)
        self._bar.update(self._task, completed=done, total=total)
