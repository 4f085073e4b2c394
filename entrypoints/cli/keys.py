"""`facepass keys ...`."""

import click
from dishka import Scope

from application.ports.access_tokens import SigningKey
from application.use_cases.accounts.rotate_signing_key import RotateSigningKey
from entrypoints.cli.session import console, print_json, run, session


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


async def _rotate_signing(*, at_once: bool) -> SigningKey:
    async with session() as container, container(scope=Scope.REQUEST) as unit:
        rotate = await unit.get(RotateSigningKey)
        return await rotate(at_once=at_once)
