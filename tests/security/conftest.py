from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from entrypoints.settings import Settings
from tests.conftest import beside, drop_database, execute
from tests.e2e.in_process import InProcess
from tests.security.house import opened, settings_of


@pytest.fixture(scope="session")
async def house_settings(
    postgres_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Settings]:
    """Settings of a service over a database of its own."""
    name = f"house_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {migrated_url.rpartition('/')[2].partition('?')[0]}")
    folder: Path = tmp_path_factory.mktemp("house")
    yield settings_of(beside(postgres_url, name), folder)
    await drop_database(postgres_url, name)


@pytest.fixture(scope="session")
async def house(house_settings: Settings) -> AsyncIterator[InProcess]:
    """A whole service in this process, over memory backends; tests put doors of their own before it."""
    async with opened(house_settings) as running:
        yield running
