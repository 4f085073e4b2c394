"""What every command does: read settings, open the container, run, and say errors in one line."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, Self, TypeVar

import click
from dishka import AsyncContainer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from domain.errors import FacepassError
from entrypoints.logs import configure_logs
from entrypoints.settings import Settings, SettingsError, read_settings
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import opened

T = TypeVar("T")
P = ParamSpec("P")

FAILED = 1
"""Exit status of a command that could not do its work; 2 is click's for a wrong call."""

console = Console(stderr=True)
"""Where progress and remarks go: standard output is for results alone."""


class CommandFailed(click.ClickException):
    """An error as the command line shows it: one line, the stable code at its end, status 1."""

    exit_code = FAILED

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        """Print it to standard error."""
        console.print(f"[red]facepass:[/red] {self.message}", highlight=False)


def settings_of_process() -> Settings:
    """Read the settings. Raises `CommandFailed` that names the wrong one."""
    try:
        settings = read_settings()
    except SettingsError as error:
        raise CommandFailed(str(error)) from error
    configure_logs(settings)
    return settings


@asynccontextmanager
async def session(settings: Settings | None = None) -> AsyncIterator[AsyncContainer]:
    """Open the container for one command, with a progress bar where a model pack has to be built first."""
    with PullProgress() as progress:
        async with opened(settings or settings_of_process(), progress=progress) as container:
            yield container


def run(work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a command's work on an event loop of its own; errors of the core end as `CommandFailed`."""

    async def main() -> T:
        return await work(*args, **kwargs)

    try:
        return asyncio.run(main())
    except FacepassError as error:
        raise CommandFailed(f"{error.message} ({error.code})") from error
    except StartError as error:
        raise CommandFailed(str(error)) from error
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(130)


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
