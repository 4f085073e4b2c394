"""`facepass api-keys ...`."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import click
from dishka import Scope as Lifetime
from rich.markup import escape
from rich.table import Column, Table

from application.use_cases.keys.create_api_key import CreateApiKey
from application.use_cases.keys.issue_key import IssuedKey
from application.use_cases.keys.list_api_keys import ListApiKeys
from application.use_cases.keys.revoke_api_key import RevokeApiKey
from domain.credential import ApiKey, ApiKeyId, Principal
from domain.permission import DEFAULT_SCOPES, IN_WORKSPACE, Scope
from domain.workspace import WorkspaceId
from entrypoints.cli import options
from entrypoints.cli.places import workspace_named
from entrypoints.cli.session import console, print_json, print_wide, run, session
from entrypoints.http.access_shapes import to_api_key, to_issued_key
from entrypoints.http.names import gallery_named

_AT_ONCE = 100


@click.group()
def api_keys() -> None:
    """List, make and revoke API keys."""


@api_keys.command("list")
@options.workspace
@options.as_json
def list_keys(*, workspace: str, as_json: bool) -> None:
    """List the API keys of a workspace, those too that are good no longer."""
    found = run(_listed, workspace)
    if as_json:
        print_json([to_api_key(key) for key in found])
        return
    if not found:
        console.print("There are none.")
        return
    now = datetime.now(UTC)
    table = Table(Column("id", overflow="fold"), "name", "begins with", "scopes", "galleries", "last used", "state")
    for key in found:
        table.add_row(
            str(key.id),
            escape(key.name),
            key.prefix,
            ", ".join(sorted(key.scopes)),
            "all" if key.galleries is None else str(len(key.galleries)),
            "never" if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M}",
            _state(key, now),
        )
    print_wide(table)


@api_keys.command("create")
@click.argument("name")
@options.workspace
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What the key may do; repeat it. Default: everything but embed.",
)
@click.option(
    "--gallery",
    "galleries",
    multiple=True,
    metavar="NAME",
    help="A gallery, by name or id, that it is for alone; repeat it. Default: all.",
)
@click.option("--days", type=click.IntRange(min=1, max=36500), help="Days until it expires. Default: never.")
@options.as_json
def create(
    *, name: str, workspace: str, scopes: tuple[str, ...], galleries: tuple[str, ...], days: int | None, as_json: bool
) -> None:
    """Make an API key, which is printed this once and kept as a hash alone. NAME says what it is for."""
    issued = run(
        _created,
        workspace,
        name=name,
        scopes=frozenset(map(Scope, scopes)) or DEFAULT_SCOPES,
        galleries=galleries,
        expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
    )
    if as_json:
        print_json(to_issued_key(issued))
        return
    console.print("The API key, shown this once:")
    click.echo(issued.secret)


@api_keys.command("revoke")
@click.argument("key", type=click.UUID, metavar="ID")
@options.workspace
def revoke(*, key: UUID, workspace: str) -> None:
    """Revoke an API key, at once, on every node; `facepass api-keys list` shows its ID."""
    run(_revoked, workspace, ApiKeyId(key))
    console.print("It is revoked.")


async def _listed(workspace: str) -> list[ApiKey]:
    async with session() as container:
        place = await workspace_named(container, workspace)
        found: list[ApiKey] = []
        after: UUID | None = None
        while True:
            async with container(scope=Lifetime.REQUEST) as unit:
                page = await (await unit.get(ListApiKeys))(
                    workspace=place, viewer=_operator(place), limit=_AT_ONCE, after=after
                )
            found += page.items
            after = page.next_after
            if after is None:
                return found


async def _created(
    workspace: str,
    *,
    name: str,
    scopes: frozenset[Scope],
    galleries: tuple[str, ...],
    expires_at: datetime | None,
) -> IssuedKey:
    async with session() as container:
        place = await workspace_named(container, workspace)
        async with container(scope=Lifetime.REQUEST) as unit:
            return await (await unit.get(CreateApiKey))(
                workspace=place,
                maker=_operator(place),
                name=name,
                scopes=scopes,
                galleries=[gallery_named(one) for one in galleries] or None,
                expires_at=expires_at,
            )


async def _revoked(workspace: str, key: ApiKeyId) -> None:
    async with session() as container:
        place = await workspace_named(container, workspace)
        async with container(scope=Lifetime.REQUEST) as unit:
            await (await unit.get(RevokeApiKey))(workspace=place, revoker=_operator(place), key=key)


def _operator(workspace: WorkspaceId) -> Principal:
    """Whoever has the data and the master key may do everything."""
    return Principal(workspace=workspace, permissions=IN_WORKSPACE, scopes=frozenset(Scope))


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "good"
    return f"{'good until' if key.usable(now) else 'expired'} {key.expires_at:%Y-%m-%d}"
