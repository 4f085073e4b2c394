from collections.abc import Callable
from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.database import engine
from adapters.persistence.errors import PORT, translated
from application.ports.errors import PortRejected

# Any number will do, as long as it stays the same: all processes of all versions must wait for the same lock.
_LOCK: Final = 0x66616365
_PATIENCE: Final = 3600.0


async def upgrade(url: str) -> None:
    """Bring the database to this version's schema; nothing happens where it is there already.

    Processes that do so at once wait for each other. Raises `PortRejected` where a newer version has been at work,
    and `PortUnavailable`.
    """
    await _alone(url, lambda config: command.upgrade(config, "head"))


async def downgrade(url: str, revision: str) -> None:
    """Take the database back to `revision`, `base` for nothing at all. Raises as `upgrade` does."""
    await _alone(url, lambda config: command.downgrade(config, revision))


async def revision(url: str, message: str) -> None:
    """Write a migration from what `tables.py` says and this database, which is at `head`, has not."""
    number = f"{sum(1 for _ in ScriptDirectory.from_config(_config()).walk_revisions()) + 1:04}"
    await _alone(url, lambda config: command.revision(config, message, autogenerate=True, rev_id=number))


async def current(url: str) -> str | None:
    """Return the revision that the database is at, None where nothing was ever made. Raises `PortUnavailable`."""
    pool = engine(url, connections=1, timeout=_PATIENCE)
    try:
        return await _revision(pool)
    finally:
        await pool.dispose()


async def is_current(pool: AsyncEngine) -> bool:
    """Whether the database is at this version's schema. Raises `PortUnavailable`."""
    return await _revision(pool) == head()


def head() -> str:
    """Return the newest revision that this version knows."""
    known = ScriptDirectory.from_config(_config()).get_current_head()
    if known is None:
        raise RuntimeError("the migrations are missing from this installation")
    return known


async def _alone(url: str, work: Callable[[Config], object]) -> None:
    pool = engine(url, connections=2, timeout=_PATIENCE)
    try:
        with translated():
            # The lock is a connection's own, so that migrations may commit as they go: it ends with the connection.
            async with pool.connect() as lock, pool.connect() as connection:
                await lock.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
                await connection.run_sync(lambda sync: _run(sync, work))
    finally:
        await pool.dispose()


def _run(connection: Connection, work: Callable[[Config], object]) -> None:
    config = _config()
    config.attributes["connection"] = connection
    found = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    try:
        if found is not None:
            ScriptDirectory.from_config(config).get_revision(found)
    except CommandError as error:
        raise PortRejected(
            PORT,
            f"its schema ({found}) is of a newer version of facepass than this one: start that version, or restore a"
            " backup from before it",
        ) from error
    work(config)


async def _revision(pool: AsyncEngine) -> str | None:
    with translated():
        async with pool.connect() as connection:
            return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
