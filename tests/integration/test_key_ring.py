import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.key_ring import SqlKeyRing
from adapters.persistence.tables import INSTALLATION, KEY_RING
from adapters.security import wrapping_keys
from adapters.security.cipher import AesGcmCipher
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.master_key import LocalMasterKey
from adapters.security.opened_ring import OpenedRing, wrapped_entry
from adapters.security.secret import Secret
from adapters.security.wrapping_keys import WrappingKeys
from adapters.system.id_generator import UuidV7Generator
from application.ports.cipher import DataKeyId, Place
from application.ports.errors import PortRejected, PortUnavailable
from application.ports.key_ring import SETTLED_AFTER, RingEntry, RingPurpose
from domain.workspace import WorkspaceId
from entrypoints.wiring.keys import opened_ring, sealing_at
from tests.e2e.in_process import settings_for

IDS = UuidV7Generator()
OLD = LocalMasterKey(Secret(b"\x01" * 32))
NEW = LocalMasterKey(Secret(b"\x02" * 32))
HOME = WorkspaceId(IDS.new())


async def opened(database: Database, master: LocalMasterKey = OLD) -> OpenedRing:
    return await opened_ring(master, reads=database.reads, transactions=database.transactions)


@asynccontextmanager
async def ring_of(database: Database) -> AsyncIterator[SqlKeyRing]:
    """The ring as it is kept; what was changed is committed behind the block."""
    connection = SqlConnection(database.transactions)
    try:
        yield SqlKeyRing(connection)
        await connection.commit()
    finally:
        await connection.aclose()


async def entries(database: Database) -> Sequence[RingEntry]:
    async with ring_of(database) as ring:
        return await ring.entries()


async def add(database: Database, *added: RingEntry) -> None:
    async with ring_of(database) as ring:
        before = await ring.entries()
        assert await ring.change(before, [*before, *added])


async def age(database: Database) -> None:
    """Let everything in the ring be an hour old."""
    async with database.transactions.begin() as connection:
        await connection.execute(update(KEY_RING).values(created_at=func.now() - text("interval '1 hour'")))


async def test_a_new_installation_draws_secrets_that_outlive_its_processes(database: Database) -> None:
    first, second = await opened(database), await opened(database)
    assert first.hashing == second.hashing
    assert first.wrapping.secrets == second.wrapping.secrets
    assert first.hashing != OLD.secret
    assert first.first_master != OLD.fingerprint
    assert first.wrapping.secrets[0] != OLD.secret.derive("wrap")
    async with database.transactions.connect() as connection:
        assert await connection.scalar(select(INSTALLATION.c.master_key)) == OLD.fingerprint


async def test_no_secret_of_the_ring_is_in_the_database(database: Database) -> None:
    ring = await opened(database)
    kept = b"".join(entry.wrapped for entry in await entries(database))
    assert ring.hashing.value not in kept
    assert ring.wrapping.secrets[0] not in kept


async def test_an_installation_with_data_goes_on_with_what_it_has(database: Database) -> None:
    async with database.transactions.begin() as connection:
        await connection.execute(insert(INSTALLATION).values(master_key=OLD.fingerprint))
    ring = await opened(database)
    assert ring.hashing == OLD.secret
    assert ring.first_master == OLD.fingerprint
    old = AesGcmCipher(WrappingKeys({0: OLD.secret.derive("wrap")}))
    key = old.new_key(DataKeyId(IDS.new()), workspace=HOME)
    place = Place(workspace=HOME, subject=IDS.new(), purpose="template")
    assert AesGcmCipher(ring.wrapping).open(old.seal(b"x", key=key, place=place), key=key, place=place) == b"x"
    assert HmacKeyedHash(ring.hashing).digest("api-key", b"x") == HmacKeyedHash(OLD.secret).digest("api-key", b"x")


@pytest.mark.parametrize("known", [True, False], ids=["before there was a ring", "with a ring"])
async def test_another_master_key_is_refused_and_changes_nothing(database: Database, *, known: bool) -> None:
    if known:
        async with database.transactions.begin() as connection:
            await connection.execute(insert(INSTALLATION).values(master_key=OLD.fingerprint))
    else:
        await opened(database)
    before = await entries(database)
    with pytest.raises(PortRejected, match="another master key"):
        await opened(database, NEW)
    assert await entries(database) == before


async def test_processes_that_start_at_once_have_one_ring(database: Database) -> None:
    rings = await asyncio.gather(*(opened(database) for _ in range(8)))
    assert len({ring.hashing.value for ring in rings}) == 1
    assert len({ring.wrapping.secrets[0] for ring in rings}) == 1


async def test_of_two_first_starts_with_two_master_keys_one_is_refused(database: Database) -> None:
    outcomes = await asyncio.gather(*(opened(database, master) for master in (OLD, NEW)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["OpenedRing", "PortRejected"]


async def test_a_damaged_ring_is_refused_and_the_row_is_named(database: Database) -> None:
    await opened(database)
    async with database.transactions.begin() as connection:
        await connection.execute(update(KEY_RING).where(KEY_RING.c.purpose == "wrap").values(wrapped=b"\x01" * 60))
    with pytest.raises(PortRejected, match="wrap key 0"):
        await opened(database)


async def test_a_change_of_what_has_changed_meanwhile_is_none(database: Database) -> None:
    await opened(database)
    before = await entries(database)
    added = await wrapped_entry(OLD, RingPurpose.WRAP, 1, b"\x03" * 32)
    async with ring_of(database) as ring:
        assert await ring.change(before, [*before, added])
    async with ring_of(database) as ring:
        assert not await ring.change(before, before[:1])
    assert {entry.identity for entry in await entries(database)} == {entry.identity for entry in [*before, added]}


async def test_a_new_wrapping_key_opens_at_once_and_seals_when_everybody_has_it(database: Database) -> None:
    ring = await opened(database)
    await add(database, await wrapped_entry(OLD, RingPurpose.WRAP, 1, b"\x03" * 32))
    await ring.read()
    assert set(ring.wrapping.secrets) == {0, 1}
    assert ring.wrapping.sealing[0] == 0
    await age(database)
    await ring.read()
    assert ring.wrapping.sealing[0] == 1


async def test_a_process_learns_of_a_new_wrapping_key_by_itself(database: Database) -> None:
    ring = await opened(database)
    async with ring.followed():
        await add(database, await wrapped_entry(OLD, RingPurpose.WRAP, 1, b"\x03" * 32))
        async with asyncio.timeout(30.0):
            while 1 not in ring.wrapping.secrets:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)


class Unsound(RuntimeError):
    """What no port raises."""


@pytest.mark.parametrize("error", [Unsound(), PortRejected("master_key", "no"), PortUnavailable("database", "gone")])
async def test_a_process_reads_the_ring_again_whatever_a_read_raised(database: Database, error: Exception) -> None:
    await opened(database)
    kept, reads = await entries(database), 0

    async def read() -> Sequence[RingEntry]:
        nonlocal reads
        reads += 1
        if reads == 2:
            raise error
        return kept

    ring = OpenedRing(OLD, read)
    await ring.read()
    async with ring.followed(), asyncio.timeout(30.0):
        while reads < 3:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


async def test_a_process_that_cannot_read_the_ring_seals_nothing_more_and_opens_what_it_knows(
    database: Database,
) -> None:
    await opened(database)
    kept = await entries(database)
    reads = 0

    async def read() -> Sequence[RingEntry]:
        nonlocal reads
        reads += 1
        if reads > 1:
            raise PortUnavailable("database", "gone")
        return kept

    ring = OpenedRing(OLD, read)
    await ring.read()
    cipher = AesGcmCipher(ring.wrapping)
    key = cipher.new_key(DataKeyId(IDS.new()), workspace=HOME)
    ring.wrapping.renew(ring.wrapping.secrets, sealing=0, read_at=time.monotonic() - SETTLED_AFTER)
    async with ring.followed(), asyncio.timeout(30.0):
        while reads < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
        with pytest.raises(PortUnavailable, match="cannot be read"):
            cipher.new_key(DataKeyId(IDS.new()), workspace=HOME)
        with pytest.raises(PortUnavailable, match="cannot be read"):
            cipher.rewrapped(key)
    place = Place(workspace=HOME, subject=IDS.new(), purpose="template")
    assert cipher.open(cipher.seal(b"x", key=key, place=place), key=key, place=place) == b"x"


async def test_a_process_seals_again_as_soon_as_it_has_read_the_ring(database: Database) -> None:
    ring = await opened(database)
    cipher = AesGcmCipher(ring.wrapping)
    ring.wrapping.renew(ring.wrapping.secrets, sealing=0, read_at=time.monotonic() - SETTLED_AFTER)
    with pytest.raises(PortUnavailable, match="cannot be read"):
        cipher.new_key(DataKeyId(IDS.new()), workspace=HOME)
    await ring.read()
    assert cipher.new_key(DataKeyId(IDS.new()), workspace=HOME)


async def test_a_migration_seals_however_long_it_takes(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing = await sealing_at(database_url, settings_for(database_url, tmp_path, tmp_path / "models"))()
    monkeypatch.setattr(wrapping_keys, "SETTLED_AFTER", -1.0)
    assert sealing.cipher.new_key(DataKeyId(IDS.new()), workspace=HOME)


async def test_a_process_whose_master_key_was_retired_seals_nothing_more(database: Database) -> None:
    ring = await opened(database)
    cipher = AesGcmCipher(ring.wrapping)
    async with ring_of(database) as kept:
        before = await kept.entries()
        assert await kept.change(
            before,
            [
                await wrapped_entry(NEW, RingPurpose.HASH, 0, ring.hashing.value),
                await wrapped_entry(NEW, RingPurpose.WRAP, 0, ring.wrapping.secrets[0]),
            ],
        )
    with pytest.raises(PortRejected, match="another master key"):
        await ring.read()
    with pytest.raises(PortUnavailable, match="retired"):
        cipher.new_key(DataKeyId(IDS.new()), workspace=HOME)
    assert (await opened(database, NEW)).hashing == ring.hashing
