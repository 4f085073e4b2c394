"""`facepass backup` and `facepass restore`."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from application.use_cases.audit.origin import CLI, set_origin
from entrypoints.cli import options
from entrypoints.cli.session import CommandFailed, console, print_json, results, run, session, settings_of_process
from entrypoints.settings import Settings
from entrypoints.wiring.backups import Manifest, Report, Restored, back_up, read_manifest, require_whole
from entrypoints.wiring.backups import restore as put_back

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option(
    "--key-to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Copy the master key there too: another place than the backup's.",
)
@options.as_json
def backup(*, folder: Path, key_to: Path | None, as_json: bool) -> None:
    """Back up the record, kept images and the ledger of erasures.

    FOLDER is new or empty. The service may serve meanwhile: the record is that of one moment. The master key is not
    in it, and nothing in it can be opened without; the vector index is not either: a restore makes it anew.
    """
    settings = settings_of_process()
    folder = folder.absolute()
    if key_to is not None:
        _require_apart(settings, folder, key_to.absolute())
        _copy_key(settings.master_key_path, key_to)  # first: a key that cannot be written is known at once
    manifest = run(_back_up, settings, folder)
    if as_json:
        print_json(manifest)
        return
    results.print(
        f"{escape(str(folder))}: {manifest.rows('people'):,} people, {manifest.rows('references'):,} references,"
        f" {manifest.blobs:,} images, {manifest.erasures:,} erasures"
    )
    console.print(
        f"The master key is at {escape(str(key_to))}: keep it apart from the backup."
        if key_to is not None
        else "The master key is not in it: without the key nothing in it can be opened."
    )


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--ledger", type=options.EXISTING_FILE, help="Erasures from 'facepass erase ledger --export' too.")
@click.option("--replace", is_flag=True, help="Put it in the place of what the database holds.")
@click.option("--no-index", is_flag=True, help="Leave the vector index for 'facepass index rebuild --all'.")
@click.option("--yes", is_flag=True, help="Do not ask before anything is replaced.")
@options.as_json
def restore(*, folder: Path, ledger: Path | None, replace: bool, no_index: bool, yes: bool, as_json: bool) -> None:
    """Restore a backup, and erase again whoever was erased since.

    Into an empty database, or with --replace into another. Services and workers are ended before. The master key is
    put back first, where FACEPASS_MASTER_KEY_FILE says. Where a restore is interrupted, it is run again with --replace.
    """
    settings = settings_of_process()
    if replace and not yes:
        click.confirm("What the database holds is lost. Go on?", abort=True, err=True)
    done = run(_restore, settings, folder.absolute(), ledger=ledger, replace=replace, index=not no_index)
    if as_json:
        print_json(done)
        return
    results.print(
        f"Restored the backup of {done.made_at:%Y-%m-%d %H:%M} UTC: {done.people:,} people, {done.blobs:,} images."
        f" Of the people {done.erased_again:,} were erased since, and are not there."
    )
    if done.indexed is None:
        console.print("The vector index finds nobody yet: facepass index rebuild --all, for each workspace.")
    else:
        results.print(f"{done.indexed:,} references are in the vector index.")
    if done.waiting:
        console.print(f"{done.waiting:,} references wait, and are tried again by the service.")


async def _back_up(settings: Settings, folder: Path) -> Manifest:
    async with session(settings) as container:
        with _bar() as report:
            return await back_up(container, folder, report=report)


async def _restore(settings: Settings, folder: Path, *, ledger: Path | None, replace: bool, index: bool) -> Restored:
    set_origin(CLI)
    with _bar() as report:
        manifest = read_manifest(folder)
        require_whole(folder, manifest, report=report)
        return await put_back(settings, folder, manifest, ledger=ledger, replace=replace, index=index, report=report)


@contextmanager
def _bar() -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


def _require_apart(settings: Settings, folder: Path, key_to: Path) -> None:
    if settings.master_key_kind != "file":
        raise CommandFailed("--key-to: the master key is in no file here, so there is none to copy")
    if key_to.resolve().is_relative_to(folder.resolve()):
        raise CommandFailed("--key-to: lies inside the backup; whoever had a copy of that would have the key to it")
    if key_to.exists():
        raise CommandFailed(f"--key-to: {key_to} is there already")


def _copy_key(path: Path, to: Path) -> None:
    try:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with path.open("rb") as key, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(key, copy)
            copy.flush()
            os.fsync(copy.fileno())
    except OSError as error:
        raise CommandFailed(f"--key-to: {to} cannot be written: {os.strerror(error.errno or 0)}") from error
