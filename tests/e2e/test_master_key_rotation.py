import asyncio
import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from dishka import AsyncContainer, Scope
from sqlalchemy import func, select, text, update

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.database import Database
from adapters.persistence.tables import AUDIT_ENTRIES, KEY_RING
from adapters.persistence.wrapped_keys import TABLES
from adapters.security.cipher import AesGcmCipher
from adapters.security.master_key import LocalMasterKey, load_or_create
from adapters.security.opened_ring import OpenedRing, wrapped_entry
from adapters.security.secret import Secret
from adapters.security.wrapping_keys import WrappingKeys
from application.ports.accounts import UserRepository
from application.ports.cipher import Cipher, DataKeyId, Place, WrappedKey
from application.ports.errors import PortRejected
from application.ports.id_generator import IdGenerator
from application.ports.key_ring import KeyRing, RingPurpose
from application.ports.repositories import JobRepository
from application.ports.transaction import Transaction
from application.ports.wrapped_keys import WrappedKeys
from application.use_cases.idempotency import Once, RememberedAnswers
from application.use_cases.jobs.files import job_file_place
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.keys.rotate_master_key import RetireMasterKey, Rotated, RotateMasterKey
from domain.audit import INSTANCE, AuditAction
from domain.errors import CannotOpen
from domain.job import Job, JobWork
from domain.user import User, UserId
from domain.workspace import WorkspaceId
from entrypoints.settings import Settings
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import opened, started
from tests.e2e.calls import enrol, is_verified
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.with_jobs import WithJobs

CALL: Once[str] = Once(key="k#0", fingerprint=b"body", call=b"call", encode=str.encode, decode=bytes.decode)
EMAIL = "ada@example.org"
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


async def age(database: Database) -> None:
    """Let everything in the ring be an hour older."""
    async with database.transactions.begin() as connection:
        await connection.execute(update(KEY_RING).values(created_at=KEY_RING.c.created_at - text("interval '1 hour'")))


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
    old = LocalMasterKey(load_or_create(settings.master_key_path).secret)
    traffic = Traffic(service.client)
    for _ in range(20):
        await traffic.round()
    beside_people = await kept(service)
    secrets = await opened_by(old, database)
    opening, wrapped = await opening_with(secrets, database)
    assert opening == wrapped > 20
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

        await age(database)
        await retire(with_new(settings))
        await traffic_ends_at(service)
        assert await is_verified(beside.client, MemoryFaceEmbedder.picture("somebody-0"), "somebody-0")
        await (await beside.container.get(OpenedRing)).read()
        await opens(beside, beside_people)

    async with database.reads.connect() as connection:
        assert set((await connection.execute(select(KEY_RING.c.master))).scalars()) == {NEW.fingerprint}
        actions = select(func.count()).where(AUDIT_ENTRIES.c.action == AuditAction.MASTER_KEY_ROTATED)
        assert (await connection.scalar(actions) or 0) >= 3
    assert await opened_by(old, database) == {}
    opening, wrapped = await opening_with(secrets, database)
    assert opening == 0 < wrapped
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


@dataclass(frozen=True, slots=True)
class Kept:
    """What has a data key and is no person's."""

    user: UserId
    job: Job
    file: bytes


async def kept(service: InProcess) -> Kept:
    """Keep a user, a job that waits with a sealed file, and an answer."""
    now = datetime.now(UTC)
    async with service.container(scope=Scope.REQUEST) as unit:
        cipher, ids = await unit.get(Cipher), await unit.get(IdGenerator)
        user = User(
            id=UserId(ids.new()),
            email=EMAIL,
            name="Ada",
            administrator=False,
            has_password=False,
            created_at=now,
            updated_at=now,
            version=1,
        )
        await (await unit.get(UserRepository)).add(user, password_hash=None)
        key = cipher.new_key(DataKeyId(ids.new()), workspace=service.workspace)
        job = await (await unit.get(StartJob))(
            workspace=service.workspace,
            kind=JobWork.BULK_ENROLMENT,
            parameters={},
            key=key,
            delay=timedelta(hours=1),
        )
        assert await (await unit.get(RememberedAnswers)).keep(service.workspace, CALL, "made")
        await (await unit.get(Transaction)).commit()
    place = job_file_place(service.workspace, job.id, 0)
    return Kept(user=user.id, job=job, file=cipher.seal(b"file", key=key, place=place))


async def opens(service: InProcess, there: Kept) -> None:
    """See that it opens."""
    async with service.container(scope=Scope.REQUEST) as unit:
        assert (await (await unit.get(UserRepository)).get(there.user)).email == EMAIL
        key = await (await unit.get(JobRepository)).key_of(service.workspace, there.job.id)
        assert key is not None
        place = job_file_place(service.workspace, there.job.id, 0)
        assert (await unit.get(Cipher)).open(there.file, key=key, place=place) == b"file"
        assert await (await unit.get(RememberedAnswers)).earlier(service.workspace, CALL) == "made"


async def opened_by(master: LocalMasterKey, database: Database) -> Mapping[int, bytes]:
    """The secrets of the ring that this master key opens: the wrapping keys by number, the hashing secret as -1."""
    found = {}
    async with database.reads.connect() as connection:
        for row in await connection.execute(select(KEY_RING)):
            with suppress(CannotOpen):
                secret = await master.unwrap(row.wrapped, context=f"{row.purpose}/{row.number}".encode())
                found[row.number if row.purpose == RingPurpose.WRAP else -1] = secret
    return found


async def opening_with(secrets: Mapping[int, bytes], database: Database) -> tuple[int, int]:
    """How many data keys of all tables open with these wrapping keys, and how many there are."""
    cipher = AesGcmCipher(WrappingKeys({number: secret for number, secret in secrets.items() if number >= 0}))
    opening = rows = 0
    async with database.reads.connect() as connection:
        for table in TABLES:
            for row in await connection.execute(select(table).where(table.c.wrapped.is_not(None))):
                key = DataKeyId(row.data_key_id if "data_key_id" in table.c else row.id)
                workspace = WorkspaceId(row.workspace_id) if "workspace_id" in table.c else INSTANCE
                rows += 1
                with suppress(CannotOpen):
                    place = Place(workspace=workspace, subject=key, purpose="")
                    cipher.seal(b"", key=WrappedKey(id=key, workspace=workspace, wrapped=row.wrapped), place=place)
                    opening += 1
    return opening, rows


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


async def test_what_is_written_late_under_the_former_key_is_wrapped_anew_before_that_goes(
    service: InProcess, settings: Settings, database: Database
) -> None:
    mine = LocalMasterKey(load_or_create(settings.master_key_path).secret)
    former = AesGcmCipher(WrappingKeys((await service.container.get(OpenedRing)).wrapping.secrets))
    async with service.container(scope=Scope.REQUEST) as unit:
        ring = await unit.get(KeyRing)
        before = await ring.entries()
        assert await ring.change(before, [*before, await wrapped_entry(mine, RingPurpose.WRAP, 1, os.urandom(32))])
        await (await unit.get(Transaction)).commit()
    async with service.container(scope=Scope.REQUEST) as slow, service.container(scope=Scope.REQUEST) as unit:
        remembered = replace(await slow.get(RememberedAnswers), cipher=former)
        retiring = asyncio.create_task((await unit.get(RetireMasterKey))(progress=lambda *_: None))
        await asyncio.wait({retiring}, timeout=0.2)
        assert await remembered.keep(service.workspace, CALL, "made")
        await age(database)
        await asyncio.wait({retiring}, timeout=1.0)
        await (await slow.get(Transaction)).commit()
        await retiring
    assert await numbers(service.container) == {1}
    assert set(await opened_by(mine, database)) == {-1, 1}
    async with service.container(scope=Scope.REQUEST) as unit:
        assert await (await unit.get(RememberedAnswers)).earlier(service.workspace, CALL) == "made"
