"""`facepass db`."""

import click

from entrypoints.cli import options
from entrypoints.cli.facts import facts
from entrypoints.cli.session import FAILED, print_json, results, run, settings_of_process
from entrypoints.wiring import database_commands


@click.group()
def db() -> None:
    """Look after the database."""


@db.command()
def upgrade() -> None:
    """Bring the schema to the newest revision.

    The embedded database does this by itself at every start.
    """
    at = run(database_commands.upgrade, settings_of_process())
    results.print(f"The schema is at {at}.")


@db.command()
@click.argument("revision")
@click.confirmation_option("--yes", prompt="What later revisions hold is lost. Go on?", help="Do not ask.")
def downgrade(revision: str) -> None:
    """Take the schema back to a revision.

    REVISION is 'base' for nothing at all. What later revisions hold is lost.

    The embedded database goes forward again at the next start of this version.
    """
    at = run(database_commands.downgrade, settings_of_process(), revision)
    results.print("Nothing is left of the schema." if at is None else f"The schema is at {at}.")


@db.command(epilog="Exit status: 0 where it is the newest, 1 where it is not.")
@options.as_json
@click.pass_context
def current(context: click.Context, *, as_json: bool) -> None:
    """Print the schema's revision."""
    at, newest = run(database_commands.current, settings_of_process())
    if as_json:
        print_json({"revision": at, "newest": newest})
    elif at == newest:
        results.print(f"{at}, the newest")
    else:
        results.print(f"{at or 'nothing'}; the newest is {newest}: facepass db upgrade")
    if at != newest:
        context.exit(FAILED)


@db.command()
@click.argument("message")
def revision(message: str) -> None:
    """Write a new migration.

    From what the tables say and the database has not, into migrations/versions.
    """
    run(database_commands.revision, settings_of_process(), message)


@db.command()
@options.as_json
def status(*, as_json: bool) -> None:
    """Say where the database is and whether it runs. Nothing is started."""
    found = run(database_commands.status, settings_of_process())
    if as_json:
        print_json(found)
        return
    rows = [
        ("database", "embedded: facepass runs it" if found.kind == "embedded" else "a server of its own"),
        ("where", found.where),
        ("running", "yes" if found.running else "no"),
    ]
    if found.running:
        said = "the newest" if found.revision == found.newest else f"the newest is {found.newest}"
        rows.append(("schema", f"{found.revision or 'nothing'}, {said}"))
    if found.processes is not None:
        rows.append(("used by", f"{found.processes} process{'' if found.processes == 1 else 'es'}"))
    if found.binaries is not None:
        rows.append(("psql, pg_dump", found.binaries))
    results.print(facts(*rows))
