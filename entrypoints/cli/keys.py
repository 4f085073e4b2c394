"""`facepass keys ...`."""

from pathlib import Path
from typing import Any, Self

import click
from dishka import Scope
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from application.ports.access_tokens import SigningKey
from application.ports.cipher import Cipher
from application.ports.key_ring import KeyRing, RingPurpose
from application.ports.master_key import MasterKey
from application.ports.wrapped_keys import WrappedKeys
from application.use_cases.accounts.rotate_signing_key import RotateSigningKey
from application.use_cases.keys.rotate_master_key import RetireMasterKey, RewrapProgress, Rotated, RotateMasterKey
from entrypoints.cli import options
from entrypoints.cli.facts import facts
from entrypoints.cli.session import CommandFailed, console, print_json, results, run, session, settings_of_process
from entrypoints.wiring.keys import drawn_master_key, make_master_key, opened_master_key, with_next_master_key
from entrypoints.wiring.start_error import StartError


@click.group()
def keys() -> None:
    """Change the secrets that everything stands under."""


@keys.command("rotate-signing")
@click.option("--at-once", is_flag=True, help="Refuse tokens of the key before, rather than let them expire.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def rotate_signing(*, at_once: bool, as_json: bool) -> None:
    """Sign access tokens with another key.

    Done by itself every 30 days. Tokens of the key before are good until they expire, within a quarter of an hour;
    with --at-once none of them is, ten seconds later at most, and clients get new ones with their refresh tokens.
    """
    key = run(_rotate_signing, at_once=at_once)
    if as_json:
        print_json({"key_id": str(key.id), "created_at": key.created_at})
        return
    click.echo(key.id)
    console.print("Access tokens are signed with this key from now on.")


@keys.command("new-master")
@click.argument("file", metavar="FILE")
def new_master(file: str) -> None:
    """Make a master key.

    FILE is where it is written, readable by its owner only; '-' prints it, for FACEPASS_MASTER_KEY. In production a
    start makes none by itself. Back it up, apart from the data: without it nothing that was enrolled can be opened.
    """
    if file == "-":
        click.echo(drawn_master_key())
        return
    try:
        fingerprint = make_master_key(Path(file), settings_of_process())
    except StartError as error:
        raise CommandFailed(str(error)) from error
    click.echo(fingerprint.hex())
    console.print(f"It is in {escape(file)}. Back it up, apart from the data.")


@keys.command()
@options.as_json
def show(*, as_json: bool) -> None:
    """Show which master keys open the ring, and how many data keys each of its wrapping keys wraps."""
    shown = run(_show)
    if as_json:
        print_json(shown)
        return
    results.print(
        facts(
            ("master key in use (fingerprint)", shown["in_use"]),
            *(("opens the ring as well", other) for other in shown["others"]),
            *((f"wrapping key {number}", f"{rows:,} data keys") for number, rows in shown["wrapping_keys"].items()),
        )
    )


@keys.command("rotate-master", epilog="Called again after an interruption it goes on where it was.")
@click.option("--to", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Where the new one is.")
@options.as_json
def rotate_master(*, to: Path | None, as_json: bool) -> None:
    """Change over to another master key while the service goes on.

    --to FILE is where the new one is, or is to be made. One that is no file is set as FACEPASS_NEXT_MASTER_KEY, or by
    FACEPASS_NEXT_MASTER_KEY_BACKEND. Both open everything then, until 'facepass keys retire-master' ends it.
    """
    with _Rewrapped() as bar:
        rotated = run(_rotate_master, to, bar)
    if as_json:
        print_json(rotated)
        return
    said = "FACEPASS_MASTER_KEY_FILE" if to else "FACEPASS_MASTER_KEY, or FACEPASS_MASTER_KEY_BACKEND and its options"
    results.print(f"{rotated.rewrapped:,} data keys are wrapped anew; wrapping key {rotated.number} is in use.")
    _say_damaged(rotated)
    results.print(
        "Both master keys open everything now. What remains to be done:\n"
        f"1. back up the new one, apart from the data{f': {to}' if to else ''}\n"
        f"2. set {said} to it on every node, and restart one after the other\n"
        "3. call 'facepass keys retire-master' with the new setting: what the old one opens is gone from then on\n"
        "4. destroy the old one when no backup is kept any more that was made under it",
        markup=False,
    )


@keys.command("retire-master")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def retire_master(*, yes: bool, as_json: bool) -> None:
    """End the change to another master key.

    For when every node was restarted with the new one: nodes that were not can open nothing from then on, and the old
    master key opens nothing of what is kept.
    """
    if not yes:
        click.confirm("Does every node run with the new master key?", abort=True, err=True)
    with _Rewrapped() as bar:
        retired = run(_retire_master, bar)
    if as_json:
        print_json(retired)
        return
    _say_damaged(retired)
    results.print("The master key in use is the only one that opens the ring.")


class _Rewrapped:
    """A line while it waits, then a bar."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("Waiting until every process knows the new key", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self._bar.update(self._task, description="Wrapping data keys anew", completed=done, total=total)


def _say_damaged(rotated: Rotated) -> None:
    if rotated.damaged:
        results.print(f"{rotated.damaged:,} data keys were damaged before: nothing opens them, and they were left.")


async def _show() -> dict[str, Any]:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        await unit.get(Cipher)  # refused where this master key does not open the ring
        master = await unit.get(MasterKey)
        entries = await (await unit.get(KeyRing)).entries()
        counts = await (await unit.get(WrappedKeys)).counts()
    numbers = {entry.number for entry in entries if entry.purpose is RingPurpose.WRAP} | set(counts)
    return {
        "in_use": master.fingerprint.hex(),
        "others": sorted({entry.master.hex() for entry in entries} - {master.fingerprint.hex()}),
        "wrapping_keys": {number: counts.get(number, 0) for number in sorted(numbers)},
    }


async def _rotate_master(to: Path | None, progress: RewrapProgress) -> Rotated:
    settings = settings_of_process()
    async with session(settings) as container, container(scope=Scope.REQUEST) as unit:
        rotate = await unit.get(RotateMasterKey)
        async with opened_master_key(with_next_master_key(settings, to), has_data=False) as new:
            return await rotate(new=new, progress=progress)


async def _retire_master(progress: RewrapProgress) -> Rotated:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        return await (await unit.get(RetireMasterKey))(progress=progress)


async def _rotate_signing(*, at_once: bool) -> SigningKey:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        rotate = await unit.get(RotateSigningKey)
        return await rotate(at_once=at_once)
