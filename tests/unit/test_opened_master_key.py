import base64
import os
from pathlib import Path

import msgspec
import pytest

from adapters.security.master_key import LocalMasterKey
from adapters.security.secret import Secret
from entrypoints.settings import Settings
from entrypoints.wiring.keys import opened_master_key, with_next_master_key
from entrypoints.wiring.start_error import StartError

COUNTING = base64.b64encode(bytes(range(32))).decode()


async def opened(settings: Settings, *, has_data: bool = False) -> bytes:
    async with opened_master_key(settings, has_data=has_data) as key:
        return key.fingerprint


def settings(folder: Path, *, production: bool, key: str | None = None) -> Settings:
    return Settings(data_dir=folder / "data", environment="production" if production else "development", master_key=key)


async def test_a_first_start_makes_one_and_the_next_has_the_same(tmp_path: Path) -> None:
    assert await opened(settings(tmp_path, production=False)) == await opened(settings(tmp_path, production=False))


async def test_data_without_its_key_stops_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^FACEPASS_MASTER_KEY_FILE: .*There is data.*backup"):
        await opened(settings(tmp_path, production=False), has_data=True)
    assert not settings(tmp_path, production=False).master_key_path.exists()


async def test_in_production_a_start_makes_none_and_says_who_does(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"facepass keys new-master"):
        await opened(settings(tmp_path, production=True))
    assert not settings(tmp_path, production=True).master_key_path.exists()


async def test_the_environment_holds_one_as_well(tmp_path: Path) -> None:
    secret = os.urandom(32)
    given = settings(tmp_path, production=True, key=base64.b64encode(secret).decode())
    assert await opened(given, has_data=True) == LocalMasterKey(Secret(secret)).fingerprint
    assert not given.master_key_path.exists()


async def test_one_that_can_be_guessed_is_refused_in_production_alone(tmp_path: Path) -> None:
    await opened(settings(tmp_path, production=False, key=COUNTING))
    with pytest.raises(StartError, match=r"^FACEPASS_MASTER_KEY: .*can be guessed") as refused:
        await opened(settings(tmp_path, production=True, key=COUNTING))
    assert COUNTING not in str(refused.value)


async def test_a_file_with_one_that_can_be_guessed_is_refused_in_production(tmp_path: Path) -> None:
    given = settings(tmp_path, production=True)
    given.master_key_path.write_text(base64.b64encode(bytes(32)).decode())
    given.master_key_path.chmod(0o600)
    with pytest.raises(StartError, match=r"^FACEPASS_MASTER_KEY_FILE: .*can be guessed"):
        await opened(given)


async def test_what_is_none_is_refused_by_the_name_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^FACEPASS_MASTER_KEY: ") as refused:
        await opened(settings(tmp_path, production=False, key="changeme"))
    assert "changeme" not in str(refused.value)


async def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path / "data", master_key_backend="my-kms")
    with pytest.raises(StartError, match=r"^FACEPASS_MASTER_KEY_BACKEND: .*'my-kms'"):
        await opened(given)


class TestTheNextOne:
    async def test_it_may_come_from_the_environment_beside_a_file_in_use(self, tmp_path: Path) -> None:
        secret = os.urandom(32)
        now = settings(tmp_path, production=False)
        in_use = await opened(now)
        then = msgspec.structs.replace(now, next_master_key=base64.b64encode(secret).decode())
        assert await opened(with_next_master_key(then, None)) == LocalMasterKey(Secret(secret)).fingerprint
        assert await opened(then, has_data=True) == in_use

    async def test_it_is_made_where_the_file_that_is_named_is_missing(self, tmp_path: Path) -> None:
        now, to = settings(tmp_path, production=False), tmp_path / "next.master.key"
        made = await opened(with_next_master_key(now, to))
        assert made == await opened(with_next_master_key(now, to)) != await opened(now)
        assert to.stat().st_mode & 0o777 == 0o600

    async def test_it_is_never_one_that_can_be_guessed(self, tmp_path: Path) -> None:
        now = msgspec.structs.replace(settings(tmp_path, production=False), next_master_key=COUNTING)
        with pytest.raises(StartError, match=r"can be guessed"):
            await opened(with_next_master_key(now, None))

    @pytest.mark.parametrize("twice", [True, False])
    def test_it_is_named_once(self, tmp_path: Path, *, twice: bool) -> None:
        now = msgspec.structs.replace(settings(tmp_path, production=False), next_master_key=COUNTING if twice else None)
        with pytest.raises(StartError, match=r"--to FILE, FACEPASS_NEXT_MASTER_KEY, or"):
            with_next_master_key(now, tmp_path / "next.master.key" if twice else None)
