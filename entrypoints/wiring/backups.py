"""Backups: the record, the kept images and the ledger in one folder, and back again. The master key is apart."""

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Final, final
from uuid import UUID

import msgspec
from dishka import AsyncContainer, Provider, Scope

from adapters.persistence import schema
from adapters.persistence.dump import DumpedTable, emptied, load, occupied, snapshot
from application.ports.audit import AuditTrail
from application.ports.blob_store import BlobKey, BlobStore, checked_blob_key
from application.ports.index_states import IndexStates
from application.ports.inventory import Inventory
from application.ports.master_key import MasterKey
from application.ports.repositories import WorkspaceRepository
from application.ports.transaction import Transaction
from application.ports.vector_index import Droppable, VectorIndex
from application.use_cases.erasure.copy_ledger import CopyLedger
from application.use_cases.erasure.ledger import LEDGER, Ledger
from application.use_cases.erasure.replay_ledger import Replayed, ReplayLedger
from application.use_cases.jobs.abandon_bulk_enrolments import AbandonBulkEnrolments
from application.use_cases.jobs.files import JOBS
from application.use_cases.references.note_stray_images import NoteStrayImages
from application.use_cases.references.places import IMAGES
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.all_galleries import all_galleries
from application.use_cases.upkeep.rebuild_index import RebuildIndex
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.erasure import Erasure
from domain.errors import InvalidValue
from domain.gallery import Gallery
from domain.workspace import WorkspaceId
from entrypoints.settings import Settings
from entrypoints.wiring.database import ServerUrl
from entrypoints.wiring.database_commands import database_server
from entrypoints.wiring.keys import opened_master_key, sealing_at
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import opened

KIND: Final = "facepass-backup/1"
MANIFEST: Final = "manifest.json"
BLOBS: Final = "blobs.tar"
ERASED: Final = "ledger.jsonl"
TABLES: Final = "database"

_LEFT_OUT: Final = (f"{LEDGER}/", f"{JOBS}/")
"""Blobs that are not in the archive of a backup; nor put back where an older one has them."""

KEYS: Final = frozenset({"installation", "key_ring"})
"""The tables without which nothing that is kept can be read."""

_CHUNK: Final = 1024 * 1024
_PAGE: Final = 100

Report = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is, where that is known."""


class KeptFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a backup."""

    name: str
    """Below its folder."""
    size: int
    sha256: str


class KeptTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the record."""

    name: str
    columns: list[str]
    rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup holds. It is written last: a folder without it is no backup."""

    kind: str
    facepass: str
    """The version that made it."""
    made_at: datetime
    schema: str
    """The revision of the tables."""
    postgresql: str
    master_key: str
    """The fingerprint of the key that opens it, which is not in it."""
    tables: list[KeptTable]
    """In the order in which they are filled."""
    blobs: int
    erasures: int
    files: list[KeptFile]

    def rows(self, table: str) -> int:
        """Return how many rows of a table it holds."""
        return next((one.rows for one in self.tables if one.name == table), 0)


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore came to."""

    made_at: datetime
    people: int
    """In the backup."""
    erased_again: int
    """Those of them who were erased since, and are not there any more."""
    blobs: int
    indexed: int | None
    """References in the index; None where it was not made anew."""
    waiting: int
    """References that the service brings in line later."""


async def back_up(container: AsyncContainer, folder: Path, *, report: Report) -> Manifest:
    """Write a backup into an empty folder, while the service serves.

    The record is copied out of one snapshot, and the images after it: an image is there before its row is.
    Raises `StartError` for a folder that is not empty, and `PortUnavailable`.
    """
    _make_empty(folder)
    master, url = await container.get(MasterKey), await container.get(ServerUrl)
    files: list[KeptFile] = []
    tables: list[KeptTable] = []
    (folder / TABLES).mkdir(mode=0o700)
    async with snapshot(url) as record:
        for number, table in enumerate(record.tables):
            report("the record", number, len(record.tables))
            with _Written.opened(folder, f"{TABLES}/{table.name}", files) as out:
                rows = await record.copy(table, out.take)
            tables.append(KeptTable(name=table.name, columns=list(table.columns), rows=rows))
        server = record.server
    with _Written.opened(folder, BLOBS, files) as out:
        blobs = await _copy_blobs(await container.get(BlobStore), out, report)
    with _Written.opened(folder, ERASED, files) as out:
        erasures = await _copy_ledger(container, out, report)
    manifest = Manifest(
        kind=KIND,
        facepass=version("facepass"),
        made_at=datetime.now(UTC),
        schema=schema.head(),
        postgresql=server,
        master_key=master.fingerprint.hex(),
        tables=tables,
        blobs=blobs,
        erasures=erasures,
        files=files,
    )
    with _Written.opened(folder, f"{MANIFEST}.incoming", []) as out:
        await out.take(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    (folder / f"{MANIFEST}.incoming").rename(folder / MANIFEST)
    _sync(folder)
    await _audit(container, AuditAction.BACKUP_MADE, {"people": manifest.rows("people"), "images": blobs})
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read what a backup says of itself. Raises `StartError` for a folder that is none, or of a newer version."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise StartError(f"{folder} is no backup, or one that was not finished: it has no {MANIFEST}") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise StartError(f"{folder / MANIFEST} cannot be read: {error}") from error
    if manifest.kind != KIND or not schema.knows(manifest.schema):
        raise StartError(
            f"the backup was made by facepass {manifest.facepass}, which is newer than this one: restore it with that"
        )
    return manifest


def require_whole(folder: Path, manifest: Manifest, *, report: Report) -> None:
    """Raise `StartError` that names the first file of a backup that is missing or was changed."""
    total, done = sum(file.size for file in manifest.files), 0
    for file in manifest.files:
        path = folder / file.name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise StartError(f"the backup is not whole: {file.name} is missing")
        digest = hashlib.sha256()
        with path.open("rb") as content:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                report("checking the backup", done, total)
        if digest.hexdigest() != file.sha256:
            raise StartError(f"the backup is not whole: {file.name} was changed since it was made")


async def restore(
    settings: Settings,
    folder: Path,
    manifest: Manifest,
    *overrides: Provider,
    ledger: Path | None,
    replace: bool,
    index: bool,
    report: Report,
) -> Restored:
    """Put a backup that is whole in the place of whatever is there; nobody may be using it.

    Whoever was erased since is erased again before anything else is done: as the ledger in the blob store says, the
    one in the backup, and `ledger`. Raises `StartError` where it must not be, and `PortUnavailable`.
    """
    await _require_key(settings, manifest)
    further = [*_lines(folder / ERASED), *([] if ledger is None else _lines(ledger))]
    async with database_server(settings) as url:
        async with opened(settings, *overrides) as container:
            blobs = await container.get(BlobStore)
            await _require_free(url, blobs, further, replace=replace)
            await _put_blobs(blobs, folder, manifest, report)
            await schema.upgrade(url, manifest.schema)
            # The keys alone first: without them the ledger cannot be read, and it must be filed before anybody is
            # there who was erased. Whoever serves after a restore that dies in between finds nobody, or the ledger.
            await _load(url, folder, [one for one in manifest.tables if one.name in KEYS], report)
            sealing = await sealing_at(url, settings)()
            entries = await _filed(Ledger(blobs=blobs, keyed_hash=sealing.keyed_hash), further)
        await _load(url, folder, [one for one in manifest.tables if one.name not in KEYS], report)
        await schema.upgrade(url, sealing=sealing_at(url, settings))
        async with opened(settings, *overrides) as container:
            replayed = await _forget_again(container, entries, report)
            await _end_jobs(container)
            await _note_strays(container)
            await _audit(
                container,
                AuditAction.BACKUP_RESTORED,
                {"made_at": int(manifest.made_at.timestamp()), "people": manifest.rows("people")},
            )
            indexed, waiting = await _rebuild(container, report) if index else (None, 0)
    return Restored(
        made_at=manifest.made_at,
        people=manifest.rows("people"),
        erased_again=replayed.people,
        blobs=manifest.blobs,
        indexed=indexed,
        waiting=waiting,
    )


async def _require_key(settings: Settings, manifest: Manifest) -> None:
    async with opened_master_key(settings, has_data=True) as master:
        if master.fingerprint.hex() != manifest.master_key:
            raise StartError(
                "the backup was sealed under another master key than the one that is set: without its own nothing in"
                f" it can be opened (fingerprint {manifest.master_key})"
            )


async def _require_free(url: str, blobs: BlobStore, further: Sequence[tuple[bytes, str]], *, replace: bool) -> None:
    there = await occupied(url)
    if there.others:
        raise StartError("something of facepass is using the database: end services and workers first")
    if there.workspaces and not replace:
        raise StartError("the database is in use: --replace puts the backup in the place of all that is in it")
    ledger = {str(msgspec.json.decode(line)["id"]) for line, _ in further}
    ledger.update([key.rpartition("/")[2] async for key in blobs.keys(f"{LEDGER}/")])
    if missing := [one for one in there.erasures if str(one) not in ledger]:
        raise StartError(
            f"{len(missing)} erasures stand in this database alone, since the blob store was away then, or has lost"
            " them: what replaces it would bring these people back. Run 'facepass erase ledger --export FILE', and"
            " restore with --ledger FILE; or start the service until the store has them"
        )
    if there.schema:
        await emptied(url)


async def _load(url: str, folder: Path, kept: Sequence[KeptTable], report: Report) -> None:
    tables = [DumpedTable(name=one.name, columns=one.columns) for one in kept]
    total = sum((folder / TABLES / one.name).stat().st_size for one in kept)
    done = 0

    async def content(table: DumpedTable) -> AsyncIterator[bytes]:
        nonlocal done
        with (folder / TABLES / table.name).open("rb") as rows:
            while chunk := await asyncio.to_thread(rows.read, _CHUNK):
                done += len(chunk)
                report("the record", done, total)
                yield chunk

    await load(url, tables, content)


async def _copy_blobs(blobs: BlobStore, out: "_Written", report: Report) -> int:
    """Write the images to one archive; what was removed since its key was listed is passed over.

    The ledger is copied apart, and files of jobs are left out: a restore ends those jobs.
    """
    copied = 0
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        async for key in blobs.keys(""):
            if key.startswith(_LEFT_OUT):
                continue
            content = await blobs.get(key)
            if content is not None:
                await asyncio.to_thread(_add, archive, key, content)
                copied += 1
                report("images", copied, None)
    return copied


async def _put_blobs(blobs: BlobStore, folder: Path, manifest: Manifest, report: Report) -> None:
    """Put back all of the archive; of what else is there nothing is touched, the ledger above all."""
    members = _members(folder / BLOBS)
    put = 0
    while member := await asyncio.to_thread(next, members, None):
        key, content = member
        if not key.startswith(_LEFT_OUT):
            await blobs.put(key, content)
            put += 1
            report("images", put, manifest.blobs)


async def _copy_ledger(container: AsyncContainer, out: "_Written", report: Report) -> int:
    copied = 0
    async with container(scope=Scope.REQUEST) as unit:
        async for line in (await unit.get(CopyLedger))():
            await out.take(line)
            copied += 1
            report("the ledger of erasures", copied, None)
    return copied


async def _filed(ledger: Ledger, lines: Sequence[tuple[bytes, str]]) -> list[Erasure]:
    """Read entries, and file them where the next start finds them, should this end before they are replayed."""
    entries = [ledger.read(line, place) for line, place in lines]
    for erasure in entries:
        if not await ledger.has(erasure):
            await ledger.file(erasure)
    return entries


async def _forget_again(container: AsyncContainer, entries: Sequence[Erasure], report: Report) -> Replayed:
    report("erasing again whoever was erased since", 0, None)
    async with container(scope=Scope.REQUEST) as unit:
        return await (await unit.get(ReplayLedger))(further=entries, whole=True)


async def _end_jobs(container: AsyncContainer) -> None:
    """End every bulk enrolment that was not done: whom they bring may have been erased since."""
    for workspace in await _workspaces(container):
        async with container(scope=Scope.REQUEST) as unit:
            await (await unit.get(AbandonBulkEnrolments))(workspace=workspace)
    blobs = await container.get(BlobStore)
    async for key in blobs.keys(f"{JOBS}/"):
        await blobs.remove(key)


async def _note_strays(container: AsyncContainer) -> None:
    """See to it that the service removes images that the record does not have; those of no workspace go at once."""
    workspaces = await _workspaces(container)
    for workspace in workspaces:
        async with container(scope=Scope.REQUEST) as unit:
            await (await unit.get(NoteStrayImages))(workspace=workspace)
    known = {str(one) for one in workspaces}
    blobs = await container.get(BlobStore)
    async for key in blobs.keys(f"{IMAGES}/"):
        if key.split("/")[1] not in known:
            await blobs.remove(key)


async def _workspaces(container: AsyncContainer) -> Sequence[WorkspaceId]:
    found: list[WorkspaceId] = []
    after: UUID | None = None
    async with container(scope=Scope.REQUEST) as unit:
        workspaces: WorkspaceRepository = await unit.get(WorkspaceRepository)
        while True:
            page = await workspaces.page(limit=_PAGE, after=after)
            found += [one.id for one in page.items]
            if (after := page.next_after) is None:
                return found


async def _rebuild(container: AsyncContainer, report: Report) -> tuple[int, int]:
    """Make the vector index anew: what is in it may be of people whom the record does not have."""
    galleries = await all_galleries(await container.get(Inventory))
    spaces, state = await container.get(ServedSpaces), await (await container.get(IndexStates)).now(fresh=True)
    for served in spaces.all:
        for name in state.written:
            await _empty(served.index(name), galleries)
    indexed = waiting = 0
    for gallery in galleries:
        if gallery.space not in {served.id for served in spaces.all}:
            continue
        before = indexed
        async with container(scope=Scope.REQUEST) as unit:
            rebuilt = await (await unit.get(RebuildIndex))(
                workspace=gallery.workspace,
                gallery=gallery.id,
                counted=lambda done, before=before: report("the vector index", before + done, None),  # type: ignore[misc]
            )
        indexed += rebuilt.references
        waiting += rebuilt.waiting
    return indexed, waiting


async def _empty(index: VectorIndex, galleries: Sequence[Gallery]) -> None:
    droppable: object = index
    if isinstance(droppable, Droppable) and await droppable.drop():
        return
    for gallery in galleries:
        await index.clear(gallery.id)


async def _audit(container: AsyncContainer, action: AuditAction, details: Mapping[str, object]) -> None:
    async with container(scope=Scope.REQUEST) as unit:
        (await unit.get(AuditTrail)).note(AuditEvent(workspace=INSTANCE, action=action, details=details))
        await (await unit.get(Transaction)).commit()


def _members(path: Path) -> Iterator[tuple[BlobKey, bytes]]:
    with tarfile.open(path, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                raise StartError(f"the backup's {BLOBS} holds something that is no file: {member.name}")
            try:
                key = checked_blob_key(member.name)
            except InvalidValue as error:
                raise StartError(f"the backup's {BLOBS} holds a name that cannot be: {member.name}") from error
            yield key, content.read()


def _add(archive: tarfile.TarFile, key: BlobKey, content: bytes) -> None:
    member = tarfile.TarInfo(key)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


def _lines(path: Path) -> list[tuple[bytes, str]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StartError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    return [(line, f"{path}:{number}") for number, line in enumerate(content.splitlines(), start=1) if line.strip()]


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StartError(f"{folder} is not empty: each backup has a folder of its own")
    except OSError as error:
        raise StartError(f"{folder} cannot be used: {os.strerror(error.errno or 0)}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@final
class _Written(io.RawIOBase):
    """A file that is hashed as it is written, and durable when it is closed."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, name: str, files: list[KeptFile]) -> "Iterator[_Written]":
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            out = cls(file)
            yield out
            file.flush()
            os.fsync(file.fileno())
        files.append(KeptFile(name=name, size=out._size, sha256=out._digest.hexdigest()))

    def writable(self) -> bool:
        return True

    def write(self, content: object, /) -> int:
        raw = bytes(content)  # type: ignore[call-overload]
        self._file.write(raw)
        self._digest.update(raw)
        self._size += len(raw)
        return len(raw)

    async def take(self, content: bytes) -> None:
        """Write without holding up anybody else."""
        await asyncio.to_thread(self.write, content)
