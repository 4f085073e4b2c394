"""`facepass bootstrap`."""

import click
import msgspec
from dishka import Scope as Lifetime

from application.use_cases.keys.bootstrap import DEFAULT_WORKSPACE, Bootstrap, Bootstrapped
from domain.permission import DEFAULT_SCOPES, Scope
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def bootstrap(*, workspace: str, new_key: bool, key_name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make the first workspace and API key.

    And the workspace's default gallery. The key is printed once and kept as a hash alone. Run again it changes
    nothing; --new-key makes another key.
    """
    chosen = frozenset(map(Scope, scopes)) or DEFAULT_SCOPES
    made = run(_bootstrap, workspace, new_key=new_key, key_name=key_name, scopes=chosen)
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
                }
            ).decode()
        )
        return
    if made.created:
        click.echo(f"Made the workspace '{made.workspace.name}' with the gallery '{made.gallery.name}'.")
    else:
        click.echo(f"The workspace '{made.workspace.name}' was there already.")
    if made.secret is None:
        click.echo("Nothing was changed. --new-key makes another API key.")
        return
    console.print("The API key, shown this once:")
    click.echo(made.secret)


async def _bootstrap(workspace: str, *, new_key: bool, key_name: str, scopes: frozenset[Scope]) -> Bootstrapped:
    async with session() as container, container(scope=Lifetime.REQUEST) as unit:
        make = await unit.get(Bootstrap)
        return await make(name=workspace, new_key=new_key, key_name=key_name, scopes=scopes)
