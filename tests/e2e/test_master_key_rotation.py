import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from dishka import AsyncContainer, Scope
from sqlalchemy import func, select, text

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.database import Database
from adapters.persistence.tables import AUDIT_ENTRIES, DATA_KEYS, KEY_RING
from adapters.security.cipher import AesGcmCipher
from adapters.security.master_key import LocalMasterKey, load_or_create
from adapters.security.secret import Secret
from adapters.security.wrapping_keys import WrappingKeys
from application.ports.cipher import DataKeyId, Place, WrappedKey
from application.ports.errors import PortRejected
from application.ports.wrapped_keys import WrappedKeys
from application.use_cases.keys.rotate_master_key import RetireMasterKey, Rotated, RotateMasterKey
from domain.audit import AuditAction
from domain.errors import CannotOpen
from domain.workspace import WorkspaceId
from entrypoints.settings import Settings
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import opened, started
from tests.e2e.calls import enrol, is_verified
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.with_jobs import WithJobs

NEW = LocalMasterKey(Secret(os.urandom(32)))


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return settings_for(database_url, tmp_path, tmp_path / "models")


def with_new(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, master_key=base64.b64encode(NEW.secret.value).decode())


def stand_ins() -> WithJobs:
    return WithJobs()


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[InProcess]:
    async with in_process(settings, stand_ins()) as running:
        yield running


async def rotate(container: AsyncContainer, new: LocalMasterKey = NEW, *, until: int | None = None) -> Rotated:
    """Rotate; with `until`, be killed when so many keys were wrapped anew."""

    def progress(done: int, _: int) -> None:
        if until is not None and done >= until:
            raise KeyboardInterrupt

    async with container(scope=Scope.REQUEST) as unit:
        return await (await unit.get(RotateMasterKey))(new=new, progress=progress)


async def retire(settings: Settings) -> Rotated:
    async with opened(settings, stand_ins()) as container, container(scope=Scope.REQUEST) as unit:
        return await (await unit.get(RetireMasterKey))(progress=lambda *_: None)


async def numbers(container: AsyncContainer) -> set[int]:
    """The wrapping keys under which there is any data key."""
    return set(await (await container.get(WrappedKeys)).counts())


class Traffic:
    """Somebody who enrols and verifies all the while."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.rounds = 0

    async def round(self) -> None:
        name = f"somebody-{self.rounds}"
        picture = MemoryFaceEmbedder.picture(name)
        await enrol(self.client, picture, external_id=name)
        for known in {name, "somebody-0"}:
            assert await is_verified(self.client, MemoryFaceEmbedder.picture(known), known)
        self.rounds += 1

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        ending = asyncio.Event()

        async def go_on() -> None:
            while not ending.is_set():
                await self.round()
                await asyncio.sleep(0.02)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            ending.set()
            await task


async def test_the_master_key_changes_while_the_service_serves(
    service: InProcess, settings: Settings, database: Database
) -> None:
    traffic = Traffic(service.client)
    for _ in range(20):
        await traffic.round()
    async with traffic.going_on():
        for killed_at in (0, 1):
            with pytest.raises(KeyboardInterrupt):
                await rotate(service.container, until=killed_at)
        before = traffic.rounds
        done = await rotate(service.container)
        assert (done.number, done.damaged) == (1, 0)
        assert traffic.rounds > before
    assert await numbers(service.container) == {1}

    async with in_process(with_new(settings), stand_ins()) as beside:
        for person in (0, traffic.rounds - 1):
            name = f"somebody-{person}"
            assert await is_verified(beside.client, MemoryFaceEmbedder.picture(name), name)
        assert await is_verified(service.client, MemoryFaceEmbedder.picture("somebody-0"), "somebody-0")

        await retire(with_new(settings))
        await traffic_ends_at(service)
        assert await is_verified(beside.client, MemoryFaceEmbedder.picture("somebody-0"), "somebody-0")

    async with database.reads.connect() as connection:
        assert set((await connection.execute(select(KEY_RING.c.master))).scalars()) == {NEW.fingerprint}
        actions = select(func.count()).where(AUDIT_ENTRIES.c.action == AuditAction.MASTER_KEY_ROTATED)
        assert (await connection.scalar(actions) or 0) >= 3
    await nothing_opens_with_the_old_one(settings, database)
    async with opened(settings, stand_ins()) as refused:
        with pytest.raises((StartError, PortRejected), match="another master key"):
            await started(refused)


async def traffic_ends_at(service: InProcess) -> None:
    """A process that still has the old master key answers nothing that needs it, and says so."""
    async with asyncio.timeout(60.0):
        while True:
            answer = await service.client.post(
                "/verify", files={"image": MemoryFaceEmbedder.picture("somebody-0")}, data={"external_id": "somebody-0"}
            )
            if answer.status_code == 503:
                return
            await asyncio.sleep(0.1)


async def nothing_opens_with_the_old_one(settings: Settings, database: Database) -> None:
    old = LocalMasterKey(load_or_create(settings.master_key_path).secret)
    async with database.reads.connect() as connection:
        for row in await connection.execute(select(KEY_RING)):
            with pytest.raises(CannotOpen):
                await old.unwrap(row.wrapped, context=f"{row.purpose}/{row.number}".encode())
        cipher = AesGcmCipher(WrappingKeys({number: old.secret.derive("wrap") for number in (0, 1)}))
        rows = (await connection.execute(select(DATA_KEYS))).all()
    assert rows
    for row in rows:
        key = WrappedKey(id=DataKeyId(row.id), workspace=WorkspaceId(row.workspace_id), wrapped=row.wrapped)
        with pytest.raises(CannotOpen):
            cipher.seal(b"", key=key, place=Place(workspace=key.workspace, subject=row.id, purpose=""))


async def test_what_it_changes_over_to_is_another_one_and_one_at_a_time(service: InProcess, settings: Settings) -> None:
    mine = LocalMasterKey(load_or_create(settings.master_key_path).secret)
    with pytest.raises(PortRejected, match="in use already"):
        await rotate(service.container, mine)
    await rotate(service.container)
    with pytest.raises(PortRejected, match="has not ended"):
        await rotate(service.container, LocalMasterKey(Secret(os.urandom(32))))
    with pytest.raises(PortRejected, match="set the new one"):
        await retire(settings)
    assert (await rotate(service.container)).number == 1


async def test_a_damaged_data_key_stops_nothing(service: InProcess, database: Database) -> None:
    await Traffic(service.client).round()
    async with database.transactions.begin() as connection:
        await connection.execute(text("UPDATE data_keys SET wrapped = decode(repeat('01', 61), 'hex')"))
    done = await rotate(service.container)
    assert done.damaged == 1
