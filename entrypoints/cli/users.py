"""`facepass users ...`."""

from uuid import UUID

import click
from dishka import Scope
from rich.markup import escape

from application.ports.accounts import UserFilter, UserRepository
from application.ports.repositories import WorkspaceRepository
from application.use_cases.accounts.delete_user import DeleteUser
from application.use_cases.accounts.list_users import ListUsers
from application.use_cases.accounts.make_link import MakeLink
from application.use_cases.accounts.restore_user import RestoreUser
from domain.errors import WorkspaceNotFound
from domain.permission import Role
from domain.user import User
from entrypoints.cli import options
from entrypoints.cli.facts import facts
from entrypoints.cli.session import console, print_json, results, run, session, settings_of_process
from entrypoints.http.account_shapes import LinkShape, to_link, to_user

_AT_ONCE = 100


@click.group()
def users() -> None:
    """Look after the accounts that sign in."""


@users.command("list")
@click.option("--deleted", is_flag=True, help="List those that were deleted.")
@options.as_json
def list_users(*, deleted: bool, as_json: bool) -> None:
    """List accounts."""
    found = run(_listed, deleted=deleted)
    if as_json:
        print_json([to_user(user) for user in found])
        return
    if not found:
        console.print("There are none.")
        return
    results.print(facts(*((escape(user.email), _said(user)) for user in found)))


@users.command("invite")
@click.option("--email", metavar="ADDRESS", help="The one address that may use it.")
@click.option("--workspace", metavar="NAME", help="Where they become a member; else they get a workspace of their own.")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), help="What they become there.  [default: viewer]"
)
@options.as_json
def invite(*, email: str | None, workspace: str | None, role: str | None, as_json: bool) -> None:
    """Make a one-time link that invites somebody.

    It is good once, within seven days. No mail is sent: hand it over in a way that you trust.
    """
    if role is not None and workspace is None:
        raise click.UsageError("--role needs a --workspace")
    chosen = None if workspace is None else Role(role or Role.VIEWER)
    _show_link(run(_invited, email, workspace, chosen), as_json=as_json)


@users.command("password-link")
@click.argument("email")
@options.as_json
def password_link(*, email: str, as_json: bool) -> None:
    """Make a one-time link that sets a password.

    It is good once, within 24 hours; an earlier one is good no longer. No mail is sent: hand it over in a way that you
    trust.
    """
    _show_link(run(_password_link, email), as_json=as_json)


@users.command("delete")
@click.argument("email")
def delete(*, email: str) -> None:
    """Delete an account; its sessions end at once."""
    run(_deleted, email)
    console.print("Deleted. 'facepass users restore' takes it back.")


@users.command("restore")
@click.argument("email")
def restore(*, email: str) -> None:
    """Take back that an account was deleted."""
    run(_restored, email)
    console.print("Restored.")


async def _listed(*, deleted: bool) -> list[User]:
    found: list[User] = []
    after: UUID | None = None
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        listed = await unit.get(ListUsers)
        while True:
            page = await listed(limit=_AT_ONCE, after=after, only=UserFilter(deleted=deleted))
            found.extend(page.items)
            after = page.next_after
            if after is None:
                return found


async def _invited(email: str | None, workspace: str | None, role: Role | None) -> LinkShape:
    settings = settings_of_process()
    async with session(settings) as container, container(scope=Scope.REQUEST) as unit:
        place = None
        if workspace is not None:
            found = await (await unit.get(WorkspaceRepository)).named(workspace)
            if found is None:
                raise WorkspaceNotFound(f"there is no workspace '{workspace}'")
            place = found.id
        made = await (await unit.get(MakeLink))(workspace=place, role=role, email=email)
        return to_link(made, public_url=settings.public_url)


async def _password_link(email: str) -> LinkShape:
    settings = settings_of_process()
    async with session(settings) as container, container(scope=Scope.REQUEST) as unit:
        user = await (await unit.get(UserRepository)).get(email)
        return to_link(await (await unit.get(MakeLink))(user=user.id), public_url=settings.public_url)


async def _deleted(email: str) -> None:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        user = await (await unit.get(UserRepository)).get(email)
        await (await unit.get(DeleteUser))(user=user.id)


async def _restored(email: str) -> None:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        user = await (await unit.get(UserRepository)).get(email)
        await (await unit.get(RestoreUser))(user=user.id)


def _show_link(link: LinkShape, *, as_json: bool) -> None:
    if as_json:
        print_json(link)
        return
    console.print(f"Good once, until {link.expires_at:%Y-%m-%d %H:%M} UTC, and shown this once:")
    click.echo(link.url)


def _said(user: User) -> str:
    parts = ["administrator"] if user.administrator else []
    if not user.has_password:
        parts.append("no password yet")
    if user.last_login_at is not None:
        parts.append(f"last login {user.last_login_at:%Y-%m-%d}")
    return ", ".join(parts) or "never logged in"
