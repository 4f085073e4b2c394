from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from entrypoints.settings import Settings
from tests.conftest import another_database
from tests.e2e.in_process import InProcess
from tests.security.house import opened, settings_of


@pytest.fixture(scope="session")
async def house_settings(
    postgres_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Settings]:
    """Settings of a service over a database of its own."""
    folder: Path = tmp_path_factory.mktemp("house")
    async with another_database(postgres_url, migrated_url) as url:
        yield settings_of(url, folder)


@pytest.fixture(scope="session")
async def house(house_settings: Settings) -> AsyncIterator[InProcess]:
    """A whole service in this process, over memory backends; tests put doors of their own before it."""
    async with opened(house_settings) as running:
        yield running
