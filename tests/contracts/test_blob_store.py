import asyncio
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, nullcontext
from pathlib import Path

import pytest

from adapters.blob_store.filesystem import ABANDONED_AFTER, FilesystemBlobStore
from adapters.blob_store.memory import MemoryBlobStore
from adapters.blob_store.s3 import open_s3_blob_store
from application.conformance.blob_store import BlobStoreContract, OpenBlobStore, listed
from application.ports.blob_store import BlobKey, BlobStore, blob_key
from application.ports.errors import PortUnavailable
from tests.relay import Relay
from tests.s3_server import ACCESS_KEY, SECRET_KEY, S3Server

ID = "0199c1f2-7d3a-7c11-9f00-5be1a2c3d4e5"
PREFIX = "facepass"


class TestMemoryBlobStore(BlobStoreContract):
    has_backend = False
    writes_in_steps = False

    @pytest.fixture
    def open_store(self) -> OpenBlobStore:
        store = MemoryBlobStore()
        return lambda: nullcontext(store)


class TestFilesystemBlobStore(BlobStoreContract):
    @pytest.fixture
    def open_store(self, root: Path) -> OpenBlobStore:
        @asynccontextmanager
        async def opened() -> AsyncIterator[BlobStore]:
            yield FilesystemBlobStore(root)

        return opened

    @pytest.fixture
    def unavailable(self, root: Path) -> BlobStore:
        store = FilesystemBlobStore(root)
        move(root, root.with_name("unmounted"))
        return store

    @pytest.fixture
    def half_written(self, root: Path) -> Callable[[BlobKey, bytes], Awaitable[None]]:
        async def begin(_: BlobKey, content: bytes) -> None:
            (root / ".incoming" / "0123456789abcdef").write_bytes(content[: len(content) // 2])

        return begin

    @pytest.fixture
    def leftovers(self, root: Path) -> Callable[[], Awaitable[int]]:
        async def count() -> int:
            return len(list((root / ".incoming").iterdir()))

        return count


class TestS3BlobStore(BlobStoreContract):
    @pytest.fixture
    def bucket(self, s3: S3Server) -> str:
        return s3.new_bucket()

    @pytest.fixture
    def open_store(self, s3: S3Server, bucket: str) -> OpenBlobStore:
        return lambda: open_s3(s3.url, bucket)

    @pytest.fixture
    async def unavailable(self, s3: S3Server, bucket: str) -> AsyncIterator[BlobStore]:
        async with Relay(s3.url) as relay, open_s3(relay.url, bucket) as store:
            relay.cut()
            yield store

    @pytest.fixture
    def half_written(self, s3: S3Server, bucket: str) -> Callable[[BlobKey, bytes], Awaitable[None]]:
        async def begin(key: BlobKey, content: bytes) -> None:
            with closing(s3.client()) as client:
                upload = client.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/{key}")
                part = {name: upload[name] for name in ("Bucket", "Key", "UploadId")}
                client.upload_part(**part, PartNumber=1, Body=content[: len(content) // 2])

        return begin

    @pytest.fixture
    def leftovers(self, s3: S3Server, bucket: str) -> Iterator[Callable[[], Awaitable[int]]]:
        with closing(s3.client()) as client:

            async def count() -> int:
                return len((await asyncio.to_thread(client.list_multipart_uploads, Bucket=bucket)).get("Uploads", ()))

            yield count


def open_s3(url: str, bucket: str) -> AbstractAsyncContextManager[BlobStore]:
    return open_s3_blob_store(bucket=bucket, prefix=PREFIX, endpoint=url, access_key=ACCESS_KEY, secret_key=SECRET_KEY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def files(root: Path) -> FilesystemBlobStore:
    return FilesystemBlobStore(root)


def entries(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


def move(source: Path, target: Path) -> None:
    source.rename(target)


@contextmanager
def no_file_may_grow_beyond(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_only_the_owner_can_open_anything(files: FilesystemBlobStore, root: Path) -> None:
    await files.put(blob_key(ID, "a"), b"x")
    for path in [root, *entries(root)]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


async def test_a_write_leaves_nothing_but_its_file(files: FilesystemBlobStore, root: Path) -> None:
    await files.put(blob_key(ID), b"x")
    assert [path for path in entries(root) if path.is_file()] == [root / "0199_" / "0199c1f_" / f"{ID}.blob"]


async def test_removing_the_last_blob_removes_its_folders(files: FilesystemBlobStore, root: Path) -> None:
    await files.put(blob_key(ID, ID, "a"), b"x")
    await files.remove(blob_key(ID, ID, "a"))
    assert entries(root) == [root / ".incoming"]


async def test_ids_of_one_day_spread_over_many_folders(files: FilesystemBlobStore, root: Path) -> None:
    day = 86_400_000
    for milliseconds in range(0, day, day // 64):
        stamp = f"{1_760_000_000_000 + milliseconds:012x}"
        await files.put(blob_key(f"{stamp[:8]}-{stamp[8:]}-7c11-9f00-5be1a2c3d4e5"), b"x")
    folders = {path.parent for path in entries(root) if path.suffix == ".blob"}
    assert len(folders) == 64


async def test_a_symbolic_link_among_the_folders_is_not_followed(
    files: FilesystemBlobStore, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.blob").write_bytes(b"secret")
    (root / "a").symlink_to(outside)
    for call in (files.get(blob_key("a", "b")), files.put(blob_key("a", "b"), b"x"), files.remove(blob_key("a", "b"))):
        with pytest.raises(PortUnavailable):
            await call
    assert (outside / "b.blob").read_bytes() == b"secret"


async def test_a_symbolic_link_in_place_of_a_blob_is_not_followed(
    files: FilesystemBlobStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "a.blob").symlink_to(tmp_path / "secret")
    with pytest.raises(PortUnavailable):
        await files.get(blob_key("a"))
    await files.put(blob_key("a"), b"own")
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert await files.get(blob_key("a")) == b"own"


async def test_tidy_sweeps_old_leftovers_and_spares_writes_under_way(files: FilesystemBlobStore, root: Path) -> None:
    old, young = root / ".incoming" / "old", root / ".incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    before = old.stat().st_mtime - ABANDONED_AFTER - 60.0
    os.utime(old, (before, before))
    await files.put(blob_key("a"), b"x")
    await files.tidy()
    assert not old.exists()
    assert young.exists()
    assert await listed(files) == ["a"]


async def test_half_written_and_foreign_files_are_not_listed(files: FilesystemBlobStore, root: Path) -> None:
    await files.put(blob_key("a"), b"x")
    (root / ".incoming" / "b.blob").write_bytes(b"half")
    (root / "lost+found").mkdir()
    (root / "README.txt").write_text("not ours")
    assert await listed(files) == ["a"]


async def test_ping_leaves_nothing_behind(files: FilesystemBlobStore, root: Path) -> None:
    await files.ping()
    assert entries(root) == [root / ".incoming"]


async def test_a_root_that_is_gone_is_unavailable_not_empty(files: FilesystemBlobStore, root: Path) -> None:
    await files.put(blob_key("a"), b"x")
    move(root, root.with_name("unmounted"))
    for call in (
        files.get(blob_key("a")),
        files.put(blob_key("a"), b"x"),
        files.remove(blob_key("a")),
        listed(files),
        files.ping(),
        files.tidy(),
    ):
        with pytest.raises(PortUnavailable):
            await call
    assert entries(root) == []


async def test_a_write_that_the_disk_cuts_short_is_unavailable_and_leaves_what_was_there(
    files: FilesystemBlobStore, root: Path
) -> None:
    await files.put(blob_key("a"), b"kept")
    with no_file_may_grow_beyond(4096), pytest.raises(PortUnavailable):
        await files.put(blob_key("a"), b"x" * 100_000)
    assert await files.get(blob_key("a")) == b"kept"
    assert entries(root) == [root / ".incoming", root / "a.blob"]


async def test_a_root_that_cannot_be_a_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PortUnavailable):
        FilesystemBlobStore(tmp_path / "file" / "blobs")


async def test_what_the_system_refuses_is_unavailable_and_names_no_path(files: FilesystemBlobStore, root: Path) -> None:
    await files.put(blob_key("a"), b"kept")
    move(root / ".incoming", root / ".elsewhere")
    with pytest.raises(PortUnavailable) as refused:
        await files.put(blob_key("a"), b"lost")
    assert refused.value.port == "blob_store"
    assert str(root) not in refused.value.message
    assert await files.get(blob_key("a")) == b"kept"
    with pytest.raises(PortUnavailable):
        await files.ping()
