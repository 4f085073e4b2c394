from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from adapters.persistence.database import engine
from adapters.persistence.errors import PORT, translated
from application.ports.cipher import Cipher
from application.ports.errors import PortRejected
from application.ports.keyed_hash import KeyedHash

# Any number will do, as long as it stays the same: all processes of all versions must wait for the same lock.
_LOCK: Final = 0x66616365
_PATIENCE: Final = 3600.0
COVERED_UP: Final = "facepass: its pages may hold what was there before it was sealed"
"""The comment of the table `people` until they are written anew."""

_OPEN_SEALING: Final = "open_sealing"
_SEALING: Final = "sealing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """What seals rows that an earlier version kept as they were."""

    cipher: Cipher
    keyed_hash: KeyedHash
    from_master_key: bool
    """Whether both still follow from the master key alone, as in the versions that knew no ring of keys."""


OpenSealing = Callable[[], Awaitable[Sealing]]
"""Opens the keys, where there are rows to be sealed; may raise whatever it likes."""


async def upgrade(url: str, to: str = "head", *, sealing: OpenSealing | None = None) -> None:
    """Bring the database to this version's schema, or to an older one; nothing happens where it is there already.

    Processes that do so at once wait for each other. Raises `PortRejected` where a newer version has been at work, or
    where there are rows to be sealed and no `sealing`, and `PortUnavailable`.
    """
    await _alone(url, lambda config: command.upgrade(config, to), sealing)


async def downgrade(url: str, revision: str, *, sealing: OpenSealing | None = None) -> None:
    """Take the database back to `revision`, `base` for nothing at all. Raises as `upgrade` does."""
    await _alone(url, lambda config: command.downgrade(config, revision), sealing)


def sealing_of(context: MigrationContext) -> Sealing:
    """Return what a migration seals with; it is opened once. Raises `PortRejected` where there is none."""
    attributes = context.config.attributes if context.config is not None else {}
    if _SEALING not in attributes:
        opens: OpenSealing | None = attributes.get(_OPEN_SEALING)
        if opens is None:
            raise PortRejected(PORT, "there are people in it whose names this migration seals, and no master key")
        attributes[_SEALING] = await_only(opens())
    sealing: Sealing = attributes[_SEALING]
    return sealing


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


def knows(revision: str) -> bool:
    """Whether a revision is one of this version's."""
    try:
        return ScriptDirectory.from_config(_config()).get_revision(revision) is not None
    except CommandError:
        return False


def head() -> str:
    """Return the newest revision that this version knows."""
    known = ScriptDirectory.from_config(_config()).get_current_head()
    if known is None:
        raise RuntimeError("the migrations are missing from this installation")
    return known


async def _alone(url: str, work: Callable[[Config], object], sealing: OpenSealing | None = None) -> None:
    pool = engine(url, connections=2, timeout=_PATIENCE)
    try:
        with translated():
            # The lock is a connection's own, so that migrations may commit as they go: it ends with the connection.
            async with pool.connect() as lock, pool.connect() as connection:
                await lock.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
                await connection.run_sync(lambda sync: _run(sync, work, sealing))
    finally:
        await pool.dispose()


def _run(connection: Connection, work: Callable[[Config], object], sealing: OpenSealing | None) -> None:
    config = _config()
    config.attributes[_OPEN_SEALING] = sealing
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
    _leave_nothing(connection)


def _leave_nothing(connection: Connection) -> None:
    """Take out of the tables' files what was there before it was sealed: an update only covers it up.

    The migration leaves a mark, in its own transaction, that is taken away when this is done: also where the process
    that migrated was killed before.
    """
    connection.rollback()
    marked = connection.scalar(text("SELECT obj_description(to_regclass('people'), 'pg_class')"))
    connection.rollback()
    if marked != COVERED_UP:
        return
    alone = connection.execution_options(isolation_level="AUTOCOMMIT")
    for table in ("people", '"references"', "answers"):
        alone.execute(text(f"VACUUM (FULL, ANALYZE) {table}"))
    alone.execute(text("COMMENT ON TABLE people IS NULL"))


async def _revision(pool: AsyncEngine) -> str | None:
    with translated():
        async with pool.connect() as connection:
            return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
