import asyncio
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher as Argon2

from adapters.security.passwords import Argon2PasswordHasher, ZxcvbnCommonPasswords
from application.ports.errors import PortBusy


@pytest.fixture
async def hasher() -> AsyncIterator[Argon2PasswordHasher]:
    made = Argon2PasswordHasher(threads=1, queue_limit=2)
    yield made
    await made.aclose()


async def test_a_hash_is_argon2id_and_opens_with_its_password_alone(hasher: Argon2PasswordHasher) -> None:
    kept = await hasher.hashed("correct horse battery")
    assert kept.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert await hasher.verified("correct horse battery", kept)
    assert not await hasher.verified("correct horse batterx", kept)
    assert not await hasher.verified("", kept)


async def test_the_same_password_is_hashed_differently_each_time(hasher: Argon2PasswordHasher) -> None:
    assert await hasher.hashed("correct horse battery") != await hasher.hashed("correct horse battery")


async def test_nobodys_password_opens_nothing(hasher: Argon2PasswordHasher) -> None:
    for tried in ("nobody's", "", "correct horse battery"):
        assert not await hasher.verified(tried, None)


async def test_what_is_no_hash_opens_nothing(hasher: Argon2PasswordHasher) -> None:
    for kept in ("", "plain", "$argon2id$v=19$m=8", "$2b$12$abcdefghijklmnopqrstuv"):
        assert not await hasher.verified("plain", kept)


async def test_hashes_by_weaker_parameters_are_outdated(hasher: Argon2PasswordHasher) -> None:
    weak = Argon2(time_cost=1, memory_cost=1024, parallelism=1).hash("correct horse battery")
    assert hasher.outdated(weak)
    assert await hasher.verified("correct horse battery", weak)
    assert not hasher.outdated(await hasher.hashed("correct horse battery"))


async def test_more_than_the_queue_holds_are_told_so_at_once(hasher: Argon2PasswordHasher) -> None:
    tries = await asyncio.gather(*(hasher.hashed("correct horse battery") for _ in range(8)), return_exceptions=True)
    assert [isinstance(one, PortBusy) for one in tries] == [False] * 3 + [True] * 5
    assert await hasher.hashed("correct horse battery")


async def test_a_call_that_was_cancelled_counts_until_its_work_has_ended(hasher: Argon2PasswordHasher) -> None:
    waiting = [asyncio.create_task(hasher.hashed("correct horse battery")) for _ in range(3)]
    await asyncio.sleep(0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(PortBusy):
        await hasher.hashed("correct horse battery")


@pytest.mark.parametrize(
    "password", ["123456789qwe", "1QAZ2WSX3EDC", "password1234", "Password2026!", "passwordpassword", "leavemealone"]
)
def test_common_passwords_and_what_is_made_of_them_are_known(password: str) -> None:
    assert ZxcvbnCommonPasswords().contains(password)


@pytest.mark.parametrize("password", ["", "correct horse battery", "monkey in a blue boat", "x9#kQ-71-vlpUz"])
def test_others_are_not(password: str) -> None:
    assert not ZxcvbnCommonPasswords().contains(password)
