"""`facepass bootstrap`."""

import sys

import click
import msgspec
from dishka import Scope as Lifetime

from application.use_cases.accounts.make_administrator import MakeAdministrator
from application.use_cases.keys.bootstrap import DEFAULT_WORKSPACE, Bootstrap, Bootstrapped
from domain.permission import DEFAULT_SCOPES, Scope
from domain.user import User
from entrypoints.cli.session import console, run, session


@click.command()
@click.option("--workspace", default=DEFAULT_WORKSPACE, show_default=True, help="The workspace's name.")
@click.option("--new-key", is_flag=True, help="Make another API key, whether or not there is one.")
@click.option("--name", "key_name", default="first", show_default=True, help="What the key is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What the key may do; repeat it. Default: everything but embed.",
)
@click.option(
    "--admin-email",
    metavar="ADDRESS",
    help="Make an instance administrator too. The password is asked for, or read from standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def bootstrap(
    *,
    workspace: str,
    new_key: bool,
    key_name: str,
    scopes: tuple[str, ...],
    admin_email: str | None,
    as_json: bool,
) -> None:
    """Make the first workspace and API key.

    And the workspace's default gallery. The key is printed once and kept as a hash alone. Run again it changes
    nothing; --new-key makes another key.

    With --admin-email also an instance administrator, who owns the workspace. Whoever has an account of that address
    becomes one, with this password, and is signed out everywhere.
    """
    chosen = frozenset(map(Scope, scopes)) or DEFAULT_SCOPES
    password = None if admin_email is None else _password()
    admin = None if admin_email is None or password is None else (admin_email, password)
    made, administrator = run(_bootstrap, workspace, new_key=new_key, key_name=key_name, scopes=chosen, admin=admin)
    if as_json:
        click.echo(
            msgspec.json.encode(
                {
                    "workspace_id": str(made.workspace.id),
                    "workspace": made.workspace.name,
                    "gallery_id": str(made.gallery.id),
                    "gallery": made.gallery.name,
                    "created": made.created,
                    "api_key": made.secret,
                    "administrator_id": None if administrator is None else str(administrator.id),
                }
            ).decode()
        )
        return
    if made.created:
        click.echo(f"Made the workspace '{made.workspace.name}' with the gallery '{made.gallery.name}'.")
    else:
        click.echo(f"The workspace '{made.workspace.name}' was there already.")
    if administrator is not None:
        click.echo(f"{administrator.email} is an instance administrator, and an owner of the workspace.")
    if made.secret is None and administrator is not None:
        return
    if made.secret is None:
        click.echo("Nothing was changed. --new-key makes another API key.")
        return
    console.print("The API key, shown this once:")
    click.echo(made.secret)


async def _bootstrap(
    workspace: str, *, new_key: bool, key_name: str, scopes: frozenset[Scope], admin: tuple[str, str] | None
) -> tuple[Bootstrapped, User | None]:
    async with session() as container, container(scope=Lifetime.REQUEST) as unit:
        administrator = await unit.get(MakeAdministrator)
        if admin is not None:
            # Before the first key is made: what ends in an error prints no key, and the next run makes none.
            administrator.checked(email=admin[0], password=admin[1])
        make = await unit.get(Bootstrap)
        made = await make(name=workspace, new_key=new_key, key_name=key_name, scopes=scopes)
        if admin is None:
            return made, None
        email, password = admin
        user, _ = await administrator(email=email, password=password, workspace=made.workspace.id)
        return made, user


def _password() -> str:
    """Ask for it twice, or read the first line of what is piped: an option would stand in the list of processes."""
    if sys.stdin.isatty():
        asked: str = click.prompt("Password of the administrator", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    return sys.stdin.readline().rstrip("\r\n")
