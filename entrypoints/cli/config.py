"""`facepass config`."""

from pathlib import Path

import click
import msgspec
from dotenv import dotenv_values
from rich.markup import escape
from rich.table import Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from entrypoints.cli import options
from entrypoints.cli.session import print_json, results, settings_of_process
from entrypoints.settings import PREFIX, Settings, process_environment, setting_names

_ADDRESSES = ("_URL",)
_SECRETS = ("_KEY", "_PASSWORD", "_SECRET", "_TOKEN")
_MASK = "***"


@click.command()
@options.as_json
def config(*, as_json: bool) -> None:
    """Print every setting.

    With its value and where that comes from; secrets are masked.
    """
    settings = settings_of_process()
    rows = [(name, _shown(name, _value(settings, name)), _origin(name)) for name in setting_names()]
    if as_json:
        print_json([{"setting": name, "value": value, "from": origin} for name, value, origin in rows])
        return
    table = Table("setting", "value", "from")
    for name, value, origin in rows:
        style = "dim" if origin == "default" else "bold"
        table.add_row(f"[{style}]{name}[/]", escape(value), origin)
    results.print(table)


def _value(settings: Settings, name: str) -> object:
    """Return a setting's value; for a folder that follows from others, what it follows to."""
    followed: dict[str, Path] = {
        "DATA_DIR": settings.data_path,
        "MASTER_KEY_FILE": settings.master_key_path,
        "MODELS__DIR": settings.models_path,
        "BLOB_STORE__PATH": settings.blobs_path,
    }
    path = name.removeprefix(PREFIX)
    if path in followed:
        return followed[path]
    value: object = settings
    for field in path.lower().split("__"):
        value = getattr(value, field)
    return value


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if name.endswith(_SECRETS) and "RATE_LIMITS" not in name:
        return _MASK
    if isinstance(value, dict):  # whether one of them is a secret only the adapter knows
        return ", ".join(f"{option.upper()}={_MASK}" for option in value)
    text = _as_set(value)
    if name.endswith(_ADDRESSES):
        try:
            return make_url(text).render_as_string(hide_password=True)
        except ArgumentError:
            return _MASK
    return text


def _as_set(value: object) -> str:
    """Return a value as one would write it into the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(msgspec.to_builtins(value, enc_hook=str))


def _origin(name: str) -> str:
    if process_environment().get(name, "").strip():
        return "environment"
    return ".env" if (dotenv_values(".env").get(name) or "").strip() else "default"
