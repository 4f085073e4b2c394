"""`facepass erase`."""

import json
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import click
from dishka import Scope
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from application.ports.receipts import ReceiptSigner
from application.use_cases.erasure.copy_ledger import CopyLedger
from application.use_cases.erasure.erase_person import ErasePerson
from application.use_cases.erasure.get_receipt import GetReceipt
from application.use_cases.erasure.prove_erasure import Proof, ProveErasure
from application.use_cases.erasure.receipts import SignedReceipt, public_key_of
from domain.person import PersonId
from entrypoints.cli import options
from entrypoints.cli.places import workspace_named
from entrypoints.cli.session import FAILED, CommandFailed, console, print_json, results, run, session
from entrypoints.http.names import gallery_named

_PERSON = click.UUID


@click.group()
def erase() -> None:
    """Erase people for good, and prove it."""


@erase.command()
@click.argument("person", type=_PERSON)
@options.gallery
@options.workspace
@click.option("--yes", is_flag=True, help="Do not ask.")
def person(*, person: UUID, gallery: str, workspace: str, yes: bool) -> None:
    """Destroy everything about a person and print the signed receipt, JSON.

    PERSON is their id. Keep the receipt: 'facepass erase verify' checks it.
    """
    if not yes:
        # Not to standard output, where the receipt goes: there is only one.
        click.confirm("Nothing brings them back. Go on?", abort=True, err=True)
    print_json(run(_erase, workspace, gallery, PersonId(person)))


@erase.command()
@click.argument("named", type=click.UUID, metavar="ID")
@options.workspace
def receipt(*, named: UUID, workspace: str) -> None:
    """Print a receipt again, JSON, also of somebody who was erased when their time was over.

    ID is the receipt's, or that of the person who was erased.
    """
    print_json(run(_receipt, workspace, named))


@erase.command(epilog="Exit status: 0 where nothing of them was found, 1 where something was or the receipt is false.")
@click.argument("receipt", type=options.EXISTING_FILE, required=False)
@click.option("--person", "-p", type=_PERSON, metavar="ID", help="Somebody who was erased, without a receipt.")
@options.workspace
@options.as_json
@click.pass_context
def verify(context: click.Context, *, receipt: Path | None, person: UUID | None, workspace: str, as_json: bool) -> None:
    """Prove that somebody is gone.

    RECEIPT is the file with what the erasure answered: its signature is checked. Then the record, every vector
    index, the blob store and the ledger are searched for the person, and what was looked at and found is said.
    """
    if (receipt is None) == (person is None):
        raise click.UsageError("name a receipt, or a person by --person")
    proof, key = run(_prove, workspace, receipt, None if person is None else PersonId(person))
    if as_json:
        print_json(_as_json(proof, key, signed=receipt is not None))
    else:
        _print(proof, key, signed=receipt is not None)
    if not proof.gone:
        context.exit(FAILED)


@erase.command()
@click.option(
    "--export",
    "to",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="Where to write it: a line an erasure, hashes alone.",
)
def ledger(*, to: Path) -> None:
    """Write the ledger of erasures to a file, to be kept beside backups.

    'facepass restore --ledger FILE' takes it, where the blob store's own is lost too.
    """
    results.print(f"{run(_export, to):,} erasures written to {escape(str(to))}")


async def _erase(workspace: str, gallery: str, person: PersonId) -> SignedReceipt:
    async with session() as container:
        place = await workspace_named(container, workspace)
        async with container(scope=Scope.REQUEST) as unit:
            return await (await unit.get(ErasePerson))(workspace=place, gallery=gallery_named(gallery), person=person)


async def _receipt(workspace: str, named: UUID) -> SignedReceipt:
    async with session() as container:
        place = await workspace_named(container, workspace)
        async with container(scope=Scope.REQUEST) as unit:
            return await (await unit.get(GetReceipt))(workspace=place, named=named)


async def _prove(workspace: str, receipt: Path | None, person: PersonId | None) -> tuple[Proof, str]:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        prove = await unit.get(ProveErasure)
        key = public_key_of(await container.get(ReceiptSigner))["public_key"]
        if receipt is not None:
            place, person = prove.claimed(_read(receipt))
        else:
            place = await workspace_named(container, workspace)
        assert person is not None  # noqa: S101 - the caller saw to it
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True) as bar:
            task = bar.add_task("looking")
            proof = await prove(
                workspace=place,
                person=person,
                looking=lambda where, number: bar.update(task, description=f"{escape(where)}: {number:,}"),
            )
        return proof, key


async def _export(to: Path) -> int:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        lines = [line async for line in (await unit.get(CopyLedger))()]
    incoming = to.with_name(f".{to.name}.incoming")
    incoming.write_bytes(b"".join(lines))
    incoming.replace(to)
    return len(lines)


def _read(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise CommandFailed(f"{path} is not JSON") from error
    if not isinstance(found, dict):
        raise CommandFailed(f"{path} is no receipt")
    return found


def _print(proof: Proof, key: str, *, signed: bool) -> None:
    erasure = proof.erasure
    if signed:
        results.print(f"The receipt is this installation's, and unchanged (Ed25519, {key}).", markup=False)
    table = Table("where", "looked at", "found")
    for look in proof.looks:
        table.add_row(escape(look.place), f"{look.looked_at:,}", f"[red]{look.found:,}[/]" if look.found else "0")
    results.print(table)
    if erasure is None:
        results.print(f"No erasure of {proof.person} is known here.")
    elif proof.gone:
        results.print(f"{proof.person} was erased at {erasure.erased_at:%Y-%m-%d %H:%M:%S} UTC: nothing is left.")
    else:
        results.print(f"[red]Something of {proof.person} is left.[/] What is noted the service removes by itself.")


def _as_json(proof: Proof, key: str, *, signed: bool) -> dict[str, object]:
    erasure = proof.erasure
    return {
        "person_id": proof.person,
        "gone": proof.gone,
        "receipt_signed": signed or None,
        "public_key": key,
        "erasure_id": None if erasure is None else erasure.id,
        "erased_at": None if erasure is None else erasure.erased_at,
        "looks": [{"place": look.place, "looked_at": look.looked_at, "found": look.found} for look in proof.looks],
    }
