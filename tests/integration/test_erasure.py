import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dishka import Scope
from sqlalchemy import text
from sqlalchemy.engine import make_url

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence import schema
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from application.ports.blob_store import BlobKey, blob_key
from application.ports.clock import Clock
from application.ports.erasures import Erasures, LedgerMark, Traces
from application.ports.repositories import ReconciliationRepository
from application.ports.transaction import Transaction
from application.use_cases.erasure.copy_ledger import CopyLedger
from application.use_cases.erasure.erase_due import DueUnit, EraseDue
from application.use_cases.erasure.erase_person import ErasePerson
from application.use_cases.erasure.erased_names import ErasedNames
from application.use_cases.erasure.file_erasures import FileErasures
from application.use_cases.erasure.get_receipt import GetReceipt
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.erasure.prove_erasure import Proof, ProveErasure
from application.use_cases.erasure.refile_erasures import RefileErasures
from application.use_cases.erasure.replay_ledger import Replayed, ReplayLedger
from application.use_cases.jobs.change_job import ChangeJob
from application.use_cases.references.reconcile import Reconcile
from domain.enrolment import ReferenceId
from domain.erasure import Erasure, ErasureId, Receipt
from domain.errors import CannotOpen, PersonNotFound
from domain.gallery import GalleryId
from domain.job import Job, JobId, JobProgress
from domain.person import PersonId
from domain.workspace import WorkspaceId
from entrypoints.http.app import make_app
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import opened, started
from tests.conftest import beside, execute
from tests.e2e.in_process import InProcess, StoppableBlobStore, in_process, settings_for
from tests.e2e.wire import encoded
from tests.e2e.with_jobs import WithJobs
from tests.locks import somebody_waits

ADA, BEN, EVE = (MemoryFaceEmbedder.picture(name) for name in ("ada", "ben", "eve"))
PEOPLE = "/galleries/default/people"


class CountingBlobStore(StoppableBlobStore):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    async def get(self, key: BlobKey) -> bytes | None:
        self.read += 1
        return await super().get(key)


class KilledError(Exception):
    """Nothing after this is done."""


class Killed:
    """In the place of what follows a commit."""

    async def after_commit(self, **_: object) -> None:
        raise KilledError


class Ahead(Clock):
    """A clock that has jumped a year ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=365)


class Backends(WithJobs):
    def __init__(self, blobs: StoppableBlobStore) -> None:
        super().__init__()
        self.blobs = blobs  # type: ignore[misc]  # shared by several services


@pytest.fixture
def blobs() -> CountingBlobStore:
    return CountingBlobStore()


@asynccontextmanager
async def running(url: str, folder: Path, blobs: StoppableBlobStore) -> AsyncIterator[InProcess]:
    async with in_process(settings_for(url, folder, folder / "models"), Backends(blobs), work=False) as one:
        yield one


@pytest.fixture
async def node(database_url: str, tmp_path: Path, blobs: CountingBlobStore) -> AsyncIterator[InProcess]:
    async with running(database_url, tmp_path, blobs) as one:
        yield one


async def enrol(node: InProcess, picture: bytes, **fields: str) -> dict[str, Any]:
    sent = await node.client.post("/galleries/default/references", files={"image": ("face.bin", picture)}, data=fields)
    assert sent.status_code == 201, sent.text
    answer: dict[str, Any] = sent.json()
    return answer


async def person(node: InProcess, picture: bytes, **fields: str) -> str:
    return str((await enrol(node, picture, **fields))["person"]["id"])


async def erase(node: InProcess, person: str, key: str | None = None) -> dict[str, Any]:
    answer = await node.client.post(f"{PEOPLE}/{person}/erase", headers={} if key is None else {"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    receipt: dict[str, Any] = answer.json()
    return receipt


async def send_batch(node: InProcess, *people: tuple[str, bytes]) -> str:
    """Let a job enrol people: in these tests nobody does it."""
    sent = await node.client.post(
        "/galleries/default/references/batch",
        json={"items": [{"external_id": name, "image": encoded(picture)} for name, picture in people]},
        headers={"Prefer": "respond-async"},
    )
    assert sent.status_code == 202, sent.text
    return str(sent.json()["id"])


async def known(node: InProcess, *, days_ago: float = 0) -> Erasure:
    """An erasure of nobody, which the database and the ledger have."""
    moment = datetime.now(UTC) - timedelta(days=days_ago)
    made = Erasure(id=ErasureId(uuid4()), workspace=node.workspace, erased_at=moment, digests=(), filed=True)
    await (await node.container.get(Ledger)).file(made)
    async with node.container(scope=Scope.REQUEST) as unit:
        await (await unit.get(Erasures)).add(made)
        await (await unit.get(Transaction)).commit()
    return made


def filed_at(erasure: Erasure) -> BlobKey:
    return blob_key("ledger", erasure.erased_at.date().isoformat(), erasure.id)


async def mark(node: InProcess) -> datetime | None:
    async with node.container(scope=Scope.REQUEST) as unit:
        return await (await unit.get(LedgerMark)).replayed_until()


async def proof(node: InProcess, person: str) -> Proof:
    async with node.container(scope=Scope.REQUEST) as unit:
        prove = await unit.get(ProveErasure)
        return await prove(workspace=node.workspace, person=PersonId(UUID(person)))


async def file_erasures(node: InProcess) -> int:
    async with node.container(scope=Scope.REQUEST) as unit:
        return await (await unit.get(FileErasures))()


async def replay(node: InProcess, further: Sequence[Erasure] = (), *, whole: bool = False) -> Replayed:
    async with node.container(scope=Scope.REQUEST) as unit:
        return await (await unit.get(ReplayLedger))(further=further, whole=whole)


async def found(node: InProcess, picture: bytes) -> list[str]:
    answer = await node.client.post("/search", files={"image": ("face.bin", picture)})
    return [match["person"]["id"] for match in answer.json()["faces"][0]["matches"]]


async def keys(blobs: StoppableBlobStore, prefix: str = "") -> list[str]:
    return [key async for key in blobs.keys(prefix)]


async def copied(postgres: str, url: str) -> str:
    """The database as it is now, as another one: a backup. Nobody may be connected."""
    name = f"copy_{uuid4().hex}"
    await execute(postgres, f"CREATE DATABASE {name} TEMPLATE {make_url(url).database}")
    return beside(postgres, name)


async def damage(url: str) -> None:
    """Change what is sealed of everybody, so that no key opens it."""
    await execute(url, "UPDATE people SET metadata = set_byte(metadata, 20, get_byte(metadata, 20) # 1)")


def is_signed(receipt: Mapping[str, Any], public_key: str) -> bool:
    """Check a receipt as somebody else would."""
    plain = {name: value for name, value in receipt.items() if name != "signature"}
    signed = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    try:
        key.verify(base64.b64decode(receipt["signature"]["value"]), signed)
    except InvalidSignature:
        return False
    return True


class TestErasing:
    async def test_the_receipt_says_what_was_destroyed_and_nothing_is_left(
        self, node: InProcess, blobs: CountingBlobStore
    ) -> None:
        ada = (await enrol(node, ADA, external_id="ada"))["person"]["id"]
        await node.client.post(
            "/galleries/default/references",
            files={"image": ("face.bin", ADA)},
            data={"external_id": "ada"},
            headers={"Idempotency-Key": "second"},
        )
        ben = await person(node, BEN)
        receipt = await erase(node, ada)
        assert receipt["destroyed"] == {
            "people": 1,
            "keys": 1,
            "references": 2,
            "templates": 2,
            "images": 2,
            "answers": 1,
            "index_entries": {"pgvector": 2},
        }
        assert receipt["still_being_removed"] == {"references": 0, "ledger": False, "jobs": 0}
        assert (receipt["person_id"], receipt["workspace_id"]) == (ada, str(node.workspace))
        assert "ada" not in json.dumps(receipt).replace(ada, "")
        proved = await proof(node, ada)
        assert proved.gone, proved.looks
        assert len(await keys(blobs, "images/")) == len(await keys(blobs, "ledger/")) == 1
        assert (await found(node, ADA), await found(node, BEN)) == ([], [ben])

    async def test_anybody_can_check_the_signature_and_a_changed_receipt_fails(self, node: InProcess) -> None:
        receipt = await erase(node, await person(node, ADA))
        known = await node.client.get("http://facepass/.well-known/facepass-receipts", headers={"X-API-Key": ""})
        public_key = known.json()["public_key"]
        assert receipt["signature"]["public_key"] == public_key
        assert is_signed(receipt, public_key)
        assert not is_signed({**receipt, "erased_at": "2001-01-01T00:00:00+00:00"}, public_key)
        async with node.container(scope=Scope.REQUEST) as unit:
            prove = await unit.get(ProveErasure)
            assert prove.claimed(receipt) == (node.workspace, UUID(receipt["person_id"]))
            for changed in (
                {**receipt, "person_id": str(uuid4())},
                {**receipt, "more": 1},
                {name: value for name, value in receipt.items() if name != "signature"},
                {**receipt, "signature": {"value": "AA=="}},
                {**receipt, "signature": {"value": "no base64"}},
            ):
                with pytest.raises(Exception, match="changed, or another installation") as refused:
                    prove.claimed(changed)
                assert refused.value.code == "receipt_invalid"  # type: ignore[attr-defined]

    async def test_erased_again_is_not_found_and_the_same_call_gets_the_same_receipt(self, node: InProcess) -> None:
        ada, ben = await person(node, ADA), await person(node, BEN)
        receipt = await erase(node, ada, key="once")
        assert await erase(node, ada, key="once") == receipt
        for headers in ({}, {"Idempotency-Key": "another"}):
            again = await node.client.post(f"{PEOPLE}/{ada}/erase", headers=headers)
            assert (again.status_code, again.json()["code"]) == (404, "person_not_found")
        other = await node.client.post(f"{PEOPLE}/{ben}/erase", headers={"Idempotency-Key": "once"})
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")

    async def test_people_merged_into_somebody_go_with_them(self, node: InProcess) -> None:
        ada, ben = await person(node, ADA), await person(node, BEN)
        await node.client.post(f"{PEOPLE}/{ada}/merge", json={"person_id": ben})
        refused = await node.client.post(f"{PEOPLE}/{ben}/erase")
        assert (refused.status_code, refused.json()["code"]) == (409, "person_merged")
        receipt = await erase(node, ada)
        assert {name: receipt["destroyed"][name] for name in ("people", "keys", "references")} == {
            "people": 2,
            "keys": 2,
            "references": 2,
        }
        assert (await proof(node, ada)).gone
        assert (await proof(node, ben)).gone

    async def test_what_could_not_be_reached_is_said_and_removed_later(
        self, node: InProcess, blobs: CountingBlobStore
    ) -> None:
        ada = await person(node, ADA)
        node.backends.index.down = True
        blobs.puts_left = 0
        receipt = await erase(node, ada)
        assert receipt["destroyed"]["index_entries"] == {"pgvector": 0}
        assert receipt["still_being_removed"] == {"references": 1, "ledger": True, "jobs": 0}
        assert await found_code(node, ada) == 404
        node.backends.index.down, blobs.puts_left = False, None
        before = await proof(node, ada)
        assert {look.place.partition(",")[0] for look in before.looks if look.found} == {
            "record: notes of what is still to be removed",
            "index pgvector",
            "blob store: images",
            "ledger beside the database: entries that are missing",
        }
        assert await file_erasures(node) == 1
        (image,) = await keys(blobs, "images/")
        async with node.container(scope=Scope.REQUEST) as unit:
            await (await unit.get(Reconcile))(
                workspace=node.workspace, references=[ReferenceId(UUID(image.rpartition("/")[2]))]
            )
        assert (await proof(node, ada)).gone

    async def test_filing_an_erasure_leaves_the_receipt_that_was_written_meanwhile(
        self, node: InProcess, blobs: CountingBlobStore
    ) -> None:
        ada = await person(node, ADA)
        blobs.puts_left = 0
        receipt = await erase(node, ada, key="once")
        blobs.puts_left = None
        final = {**receipt, "still_being_removed": {"references": 0, "ledger": False, "jobs": 0}}

        async def saved_beside() -> None:
            blobs.after_put = None
            async with node.container(scope=Scope.REQUEST) as unit:
                erasures = await unit.get(Erasures)
                (erasure,) = await erasures.unfiled(limit=10)
                await erasures.save(replace(erasure, receipt=final, filed=True))
                await (await unit.get(Transaction)).commit()

        blobs.after_put = saved_beside
        assert await file_erasures(node) == 1
        assert await erase(node, ada, key="once") == final

    @pytest.mark.parametrize("waiting", [0, 1])
    async def test_the_receipt_of_a_call_that_was_killed_is_finished_by_the_upkeep(
        self, node: InProcess, waiting: int
    ) -> None:
        ada = await person(node, ADA)
        async with node.container(scope=Scope.REQUEST) as unit:
            erase_person = replace(await unit.get(ErasePerson), reconcile=Killed())  # type: ignore[arg-type]  # called alike
            with pytest.raises(KilledError):
                await erase_person(workspace=node.workspace, gallery="default", person=PersonId(UUID(ada)))
        if not waiting:
            async with node.container(scope=Scope.REQUEST) as unit:
                notes = await unit.get(ReconciliationRepository)
                ((place, reference),) = await notes.due(datetime.now(UTC), limit=10)
                await (await unit.get(Reconcile))(workspace=place, references=[reference])
        assert [await file_erasures(node), await file_erasures(node)] == [1, 0]
        erasure = (await proof(node, ada)).erasure
        assert erasure is not None
        receipt: Any = erasure.receipt
        assert receipt["still_being_removed"] == {"references": waiting, "ledger": False, "jobs": 0}
        assert receipt["destroyed"]["index_entries"] == {"pgvector": 1 - waiting}
        assert is_signed(receipt, receipt["signature"]["public_key"])

    async def test_whoever_cannot_be_opened_any_more_is_erased_and_deleted_like_anybody(
        self, node: InProcess, database_url: str
    ) -> None:
        ada, ben = await person(node, ADA, external_id="ada"), await person(node, BEN, external_id="ben")
        await damage(database_url)
        assert await found_code(node, ada) == 500
        await erase(node, ada)
        assert (await proof(node, ada)).gone
        assert (await node.client.delete(f"{PEOPLE}/{ben}")).status_code == 204
        assert [await found_code(node, one) for one in (ada, ben)] == [404, 404]

    async def test_nobody_is_proved_to_be_gone_who_was_deleted_only(self, node: InProcess) -> None:
        ada = await person(node, ADA)
        assert not (await proof(node, ada)).gone
        await node.client.delete(f"{PEOPLE}/{ada}")
        proved = await proof(node, ada)
        assert not proved.gone
        assert proved.erasure is None


async def found_code(node: InProcess, person: str) -> int:
    return (await node.client.get(f"{PEOPLE}/{person}")).status_code


class SlowToCommit(Transaction):
    """Has done everything, and waits before it commits the first time."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.ready = asyncio.Event()
        self.go_on = asyncio.Event()

    async def commit(self) -> None:
        self.ready.set()
        await self.go_on.wait()
        await self._transaction.commit()

    async def rollback(self) -> None:
        await self._transaction.rollback()


async def tell(node: InProcess, job: str, *people: str) -> list[dict[str, Any]]:
    """Let a job say whom it has enrolled, as one that remembers all of it does, and return what is kept of it."""
    items = [{"index": place, "person_id": one, "accepted": []} for place, one in enumerate(people)]
    later = datetime.now(UTC) + timedelta(hours=2)

    def told(job: Job) -> Job | None:
        held = job if job.run else job.claimed(later, lease=timedelta(hours=1))
        return held and held.renewed(1, held_until=later, progress=JobProgress(), result={"items": items})

    async with node.container(scope=Scope.REQUEST) as unit:
        await (await unit.get(ChangeJob))(workspace=node.workspace, job=JobId(UUID(job)), by=told)
    shown: list[dict[str, Any]] = (await node.client.get(f"/jobs/{job}")).json()["result"]["items"]
    return shown


class TestWhatJobsTell:
    async def test_it_goes_with_them_is_searched_for_them_and_is_not_told_again(self, node: InProcess) -> None:
        ada, ben = await person(node, ADA), await person(node, BEN)
        job = await send_batch(node, ("ada", ADA), ("ben", BEN))
        before = await tell(node, job, ada, ben)
        place = "record: results of jobs, reports of moves"
        assert {look.place: look.found for look in (await proof(node, ada)).looks}[place] == 1
        await erase(node, ada)
        assert (await proof(node, ada)).gone
        after = (await node.client.get(f"/jobs/{job}")).json()["result"]["items"]
        assert (after[0]["index"], after[0]["problem"]["code"], after[1]) == (0, "person_not_found", before[1])
        assert await tell(node, job, ada, ben, ben) == [*after, {**before[1], "index": 2}]
        assert (await proof(node, ada)).gone

    async def test_it_is_not_told_while_they_are_erased_either(self, node: InProcess) -> None:
        ada = await person(node, ADA)
        job = await send_batch(node, ("ada", ADA))
        async with node.container(scope=Scope.REQUEST) as unit:
            slow = SlowToCommit(await unit.get(Transaction))
            erase_person = replace(await unit.get(ErasePerson), transaction=slow)
            erasing = asyncio.create_task(
                erase_person(workspace=node.workspace, gallery="default", person=PersonId(UUID(ada)))
            )
            await slow.ready.wait()
            telling = asyncio.create_task(tell(node, job, ada))
            await somebody_waits(await node.container.get(Database))
            slow.go_on.set()
            await erasing
        assert [one["problem"]["code"] for one in await telling] == ["person_not_found"]


class TestTheLedger:
    async def test_a_database_from_before_forgets_again_before_it_serves(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as before:
            ada, ben = await person(before, ADA), await person(before, BEN)
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            await erase(now, ada)
            assert [key for key in await keys(blobs, "images/") if key] != []
        async with running(backup, tmp_path, blobs) as restored:
            assert await found_code(restored, ada) == 404
            assert (await proof(restored, ada)).gone
            assert await found_code(restored, ben) == 200
            assert await replay(restored) == Replayed(new=0, people=0, references=0)

    async def test_a_batch_of_before_an_erasure_that_is_replayed_is_not_done_any_more(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as before:
            ada, batch = await person(before, ADA), await send_batch(before, ("ada", ADA))
            await tell(before, batch, ada)
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            await erase(now, ada)
        async with running(backup, tmp_path, blobs) as restored:
            shown = (await restored.client.get(f"/jobs/{batch}")).json()
            assert (shown["status"], shown["errors"][0]["code"]) == ("failed", "database_restored")
            assert [one["problem"]["code"] for one in shown["result"]["items"]] == ["person_not_found"]
            assert (await proof(restored, ada)).gone
            later = await send_batch(restored, ("ada", ADA))
            entry = Erasure(
                id=ErasureId(uuid4()), workspace=restored.workspace, erased_at=datetime.now(UTC), digests=()
            )
            before_it = replace(entry, id=ErasureId(uuid4()), erased_at=entry.erased_at - timedelta(days=1))
            for further, status in ((before_it, "queued"), (entry, "failed")):
                await replay(restored, further=[further])
                assert (await restored.client.get(f"/jobs/{later}")).json()["status"] == status

    async def test_an_image_that_came_back_without_its_row_is_noted_to_be_removed(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs):
            pass
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            ada = await person(now, ADA)
            (image,) = [BlobKey(key) for key in await keys(blobs, "images/")]
            content = await blobs.get(image)
            assert content is not None
            await erase(now, ada)
            await blobs.put(image, content)
            of_later = WorkspaceId(uuid4())  # which came after the backup
            await (await now.container.get(Ledger)).file(
                Erasure(id=ErasureId(uuid4()), workspace=of_later, erased_at=datetime.now(UTC), digests=())
            )
            await blobs.put(blob_key("images", of_later, uuid4()), content)
        async with running(backup, tmp_path, blobs) as restored:
            async with restored.container(scope=Scope.REQUEST) as unit:
                noted = await (await unit.get(Traces)).noted(restored.workspace, after=None, limit=10)
                assert [str(one) for one in noted] == [image.rpartition("/")[2]]
                await (await unit.get(Reconcile))(workspace=restored.workspace, references=noted)
            assert (await proof(restored, ada)).gone

    async def test_a_backup_of_an_older_schema_forgets_them_before_the_first_answer_after_its_upgrade(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as now:
            ada = await person(now, ADA)
            key = now.client.headers["X-API-Key"]
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            await erase(now, ada)
        await schema.downgrade(backup, "0009")
        settings = settings_for(backup, tmp_path, tmp_path / "models")
        async with opened(settings, Backends(blobs)) as container:
            await started(container)
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(make_app(container, settings)), headers={"X-API-Key": key}
            ) as client:
                path = f"http://facepass/api/v1{PEOPLE}/{ada}"
                assert (await client.get(path)).status_code == 503
                await schema.upgrade(backup)
                assert (await client.get(path)).status_code == 404

    async def test_a_merge_undone_after_the_backup_is_undone_before_the_other_goes(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as before:
            ada, ben = await person(before, ADA), await person(before, BEN)
            await before.client.post(f"{PEOPLE}/{ada}/merge", json={"person_id": ben})
        backup = await copied(postgres_url, database_url)
        damaged = await copied(postgres_url, database_url)
        await damage(damaged)
        async with running(database_url, tmp_path, blobs) as now:
            await now.client.post(f"{PEOPLE}/{ada}/unmerge", json={"person_id": ben})
            await erase(now, ada)
        async with running(backup, tmp_path, blobs) as restored:
            assert await found_code(restored, ada) == 404
            kept = (await restored.client.get(f"{PEOPLE}/{ben}")).json()
            assert kept["merged_into"] is None
            listed = (await restored.client.get("/galleries/default/references")).json()["items"]
            assert [one["person_id"] for one in listed] == [ben]
        async with running(damaged, tmp_path, blobs) as restored:
            # Where neither can be opened the start goes on all the same.
            assert [await found_code(restored, one) for one in (ada, ben)] == [404, 500]

    async def test_merges_of_merges_undone_after_the_backup_leave_everybody_their_own_faces(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        dan = MemoryFaceEmbedder.picture("dan")
        async with running(database_url, tmp_path, blobs) as before:
            # In this order the one who is further down is seen to after the one above.
            third, first, second, last = [await person(before, picture) for picture in (EVE, ADA, BEN, dan)]
            chain = ((first, second), (second, third), (third, last))
            for source, target in chain:
                await before.client.post(f"{PEOPLE}/{target}/merge", json={"person_id": source})
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            for source, target in reversed(chain):
                await now.client.post(f"{PEOPLE}/{target}/unmerge", json={"person_id": source})
            await erase(now, second)
            await erase(now, last)
        async with running(backup, tmp_path, blobs) as restored:
            assert [await found_code(restored, one) for one in (first, second, third, last)] == [200, 404, 200, 404]
            assert [await found(restored, picture) for picture in (ADA, BEN, EVE, dan)] == [[first], [], [third], []]

    async def test_a_reference_that_went_with_somebody_goes_wherever_the_backup_has_it(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as before:
            ada, ben = await person(before, ADA), await person(before, BEN)
            await before.client.post(f"{PEOPLE}/{ada}/merge", json={"person_id": ben})
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            await erase(now, ada)
        async with running(backup, tmp_path, blobs) as restored:
            assert [await found_code(restored, one) for one in (ada, ben)] == [404, 404]
            assert (await restored.client.get("/galleries/default/references")).json()["items"] == []

    async def test_a_start_that_finds_a_changed_ledger_does_not_serve(
        self, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as node:
            key = BlobKey(f"ledger/{datetime.now(UTC).date().isoformat()}/{uuid4()}")
            await blobs.put(key, b"{}")
            with pytest.raises(Exception, match="not one of the ledger") as refused:
                await replay(node)
            assert refused.value.code == "ledger_unreadable"  # type: ignore[attr-defined]
        with pytest.raises(StartError, match="not one of the ledger"):
            async with running(database_url, tmp_path, blobs):
                pass

    async def test_an_entry_of_another_person_or_installation_does_not_pass_for_one(self, node: InProcess) -> None:
        receipt = await erase(node, await person(node, ADA))
        ledger = await node.container.get(Ledger)
        (key,) = [key async for _, key in ledger.since(None, now=datetime.now(UTC))]
        written = json.loads(await node.backends.blobs.get(key) or b"")
        assert set(written) == {"version", "id", "workspace", "erased_at", "digests", "mac"}
        assert receipt["person_id"] not in json.dumps(written)
        for changed in ({"digests": []}, {"workspace": str(uuid4())}, {"mac": "00" * 32}, {"version": 2}):
            with pytest.raises(Exception, match="another installation"):
                ledger.read(json.dumps({**written, **changed}).encode(), "here")

    async def test_a_ledger_without_anything_new_is_only_listed(
        self, node: InProcess, blobs: CountingBlobStore
    ) -> None:
        for picture in (ADA, BEN, EVE):
            await erase(node, await person(node, picture))
        blobs.read = 0
        assert await replay(node) == Replayed(new=0, people=0, references=0)
        assert await replay(node, whole=True) == Replayed(new=0, people=0, references=0)
        assert blobs.read == 0

    async def test_only_the_days_since_the_last_look_are_listed(self, node: InProcess) -> None:
        ledger = await node.container.get(Ledger)
        receipt = await erase(node, await person(node, ADA))
        now = datetime.fromisoformat(receipt["erased_at"])
        for ago, listed in ((0, 1), (1, 1), (30, 1), (400, 1)):
            names = [one async for one, _ in ledger.since(now - timedelta(days=ago), now=now)]
            assert len(names) == listed
        assert [one async for one, _ in ledger.since(now + timedelta(days=3), now=now + timedelta(days=3))] == []
        await replay(node)
        marked = await mark(node)
        assert marked is not None
        assert now - timedelta(days=2) < marked <= now - timedelta(days=1)

    async def test_what_the_ledger_has_lost_is_filed_again_and_the_mark_stays(
        self, node: InProcess, blobs: CountingBlobStore
    ) -> None:
        ledger = await node.container.get(Ledger)
        older, newer = [await known(node, days_ago=ago) for ago in (90, 30)]
        await replay(node)
        marked = await mark(node)
        await known(node)
        for lost in ([newer], [older, newer]):
            for one in lost:
                await blobs.remove(filed_at(one))
            assert await replay(node) == Replayed(new=0, people=0, references=0, filed_again=len(lost))
            assert await mark(node) == marked
            assert all([await ledger.has(one) for one in (older, newer)])
        await replay(node)
        assert await mark(node) != marked
        await blobs.remove(filed_at(older))
        async with node.container(scope=Scope.REQUEST) as unit:
            assert await (await unit.get(RefileErasures))() == 1
        assert await ledger.has(older)

    async def test_a_start_beside_another_blob_store_keeps_the_entries_of_the_right_one_new(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as before:
            ada = await person(before, ADA)
            await known(before, days_ago=20)
            await replay(before)
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            await erase(now, ada)
            ledger = await now.container.get(Ledger)
            entry = await ledger.entry(BlobKey((await keys(blobs, "ledger/"))[-1]))
            await blobs.remove(filed_at(entry))
            await ledger.file(replace(entry, erased_at=entry.erased_at - timedelta(days=10)))
        async with running(backup, tmp_path, CountingBlobStore()) as elsewhere:
            assert await found_code(elsewhere, ada) == 200
            # What it knew was filed there by the start, so that this one finds nothing that is lost.
            assert await replay(elsewhere) == Replayed(new=0, people=0, references=0)
        async with running(backup, tmp_path, blobs) as restored:
            assert await found_code(restored, ada) == 404

    async def test_a_copy_has_each_erasure_once_wherever_it_is_known(
        self, node: InProcess, blobs: CountingBlobStore
    ) -> None:
        ledger = await node.container.get(Ledger)
        filed, lost = [await known(node, days_ago=ago) for ago in (0, 1)]
        await blobs.remove(filed_at(lost))
        ada = await person(node, ADA)
        blobs.puts_left = 0
        waiting = await erase(node, ada)
        blobs.puts_left = None
        new = replace(filed, id=ErasureId(uuid4()))
        await ledger.file(new)
        async with node.container(scope=Scope.REQUEST) as unit:
            lines = [line async for line in (await unit.get(CopyLedger))()]
        assert sorted(str(ledger.read(line, "here").id) for line in lines) == sorted(
            [*(str(one.id) for one in (filed, lost, new)), waiting["id"]]
        )

    async def test_it_is_replayed_from_a_file_too(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs) as before:
            ada = await person(before, ADA)
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            await erase(now, ada)
            ledger = await now.container.get(Ledger)
            (key,) = [key async for _, key in ledger.since(None, now=datetime.now(UTC))]
            line = await blobs.get(key)
            await blobs.remove(key)
        assert line is not None
        async with running(backup, tmp_path, blobs) as restored:
            assert await found_code(restored, ada) == 200
            entry = (await restored.container.get(Ledger)).read(line, "file")
            assert (await replay(restored, further=[entry])).people == 1
            assert await found_code(restored, ada) == 404

    async def test_who_was_erased_is_not_made_anew_by_what_was_asked_for_before_whatever_backup_is_restored(
        self, postgres_url: str, database_url: str, tmp_path: Path, blobs: CountingBlobStore
    ) -> None:
        async with running(database_url, tmp_path, blobs):
            pass
        backup = await copied(postgres_url, database_url)
        async with running(database_url, tmp_path, blobs) as now:
            asked_at = datetime.now(UTC)
            await erase(now, await person(now, ADA, external_id="ada"))
        async with running(backup, tmp_path, blobs) as restored:
            place = GalleryId(UUID((await restored.client.get("/galleries/default")).json()["id"]))
            async with restored.container(scope=Scope.REQUEST) as unit:
                names = await unit.get(ErasedNames)
                for name, moment, erased in (
                    ("ada", asked_at, True),
                    ("ada", datetime.now(UTC), False),
                    ("ben", asked_at, False),
                ):
                    assert await names.has_since(restored.workspace, place, name, moment) == erased


class TestThoseWhoAreDue:
    async def test_they_are_erased_with_a_receipt_and_the_others_stay(self, node: InProcess) -> None:
        past, future = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
        ada = await person(node, ADA, consent_expires_at=past)
        ben = await person(node, BEN, consent_expires_at=future, retention_days="1")
        eve = await person(node, EVE)
        erase_due = await node.container.get(EraseDue)
        assert await erase_due() == 1
        assert await erase_due() == 0
        assert [await found_code(node, one) for one in (ada, ben, eve)] == [404, 200, 200]
        assert (await proof(node, ada)).gone
        async with node.container(scope=Scope.REQUEST) as unit:
            get_receipt = await unit.get(GetReceipt)
            receipt = await get_receipt(workspace=node.workspace, named=UUID(ada))
            assert receipt["person_id"] == ada
            assert await get_receipt(workspace=node.workspace, named=UUID(str(receipt["id"]))) == receipt
            for nobody in (UUID(ben), uuid4()):
                with pytest.raises(PersonNotFound, match="no receipt"):
                    await get_receipt(workspace=node.workspace, named=nobody)

    async def test_one_who_cannot_be_opened_holds_up_nobody(self, node: InProcess, database_url: str) -> None:
        past = "2001-01-01T00:00:00Z"
        ada = await person(node, ADA, consent_expires_at=past)
        await damage(database_url)
        ben = await person(node, BEN, consent_expires_at=past)
        assert await (await node.container.get(EraseDue))() == 2
        assert [await found_code(node, one) for one in (ada, ben)] == [404, 404]

    async def test_one_who_cannot_be_erased_holds_up_nobody_and_is_told_of(self, node: InProcess) -> None:
        past = "2001-01-01T00:00:00Z"
        ada, ben = [await person(node, picture, consent_expires_at=past) for picture in (ADA, BEN)]

        @asynccontextmanager
        async def where_ada_fails() -> AsyncIterator[DueUnit]:
            async with node.container(scope=Scope.REQUEST) as unit:
                erase = await unit.get(ErasePerson)

                async def erased(*, workspace: WorkspaceId, gallery: GalleryId, person: PersonId) -> Receipt:
                    if str(person) == ada:
                        raise CannotOpen("its key is damaged")
                    return await erase(workspace=workspace, gallery=gallery, person=person)

                yield replace(await unit.get(DueUnit), erase=erased)  # type: ignore[arg-type]  # called alike

        failed: list[tuple[str, type[Exception]]] = []
        due = EraseDue(
            scope=where_ada_fails,
            clock=await node.container.get(Clock),
            failed=lambda person, error: failed.append((str(person), type(error))),
        )
        assert [await due(), await due()] == [1, 0]
        assert failed == [(ada, CannotOpen)] * 2
        assert [await found_code(node, one) for one in (ada, ben)] == [200, 404]

    @pytest.mark.parametrize(
        "given",
        ["UPDATE people SET retention_days = 30", 'UPDATE "references" SET created_at = now()'],
        ids=["a longer time", "another enrolment"],
    )
    async def test_whoever_is_given_longer_while_the_erasure_waits_for_them_stays(
        self, node: InProcess, database_url: str, given: str
    ) -> None:
        ada = await person(node, ADA, retention_days="1")
        await execute(database_url, "UPDATE \"references\" SET created_at = created_at - interval '2 days'")
        async with node.container(scope=Scope.REQUEST) as unit:
            connection = await unit.get(SqlConnection)
            await connection.execute(text("SELECT FROM people FOR NO KEY UPDATE"))
            erasing = asyncio.create_task((await node.container.get(EraseDue))())
            await somebody_waits(await node.container.get(Database))
            await connection.execute(text(given))
            await connection.commit()
        assert await erasing == 0
        assert await found_code(node, ada) == 200

    async def test_a_node_whose_clock_is_ahead_erases_nobody_early(self, node: InProcess) -> None:
        ada = await person(node, ADA, retention_days="30")
        ben = await person(node, BEN, consent_expires_at="2001-01-01T00:00:00Z")
        due = replace(await node.container.get(EraseDue), clock=Ahead())
        assert await due() == 1
        assert [await found_code(node, one) for one in (ada, ben)] == [200, 404]
