"""Blobs as files, for one machine or a shared file system with POSIX renames."""

import asyncio
import heapq
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from secrets import token_hex
from typing import Final, final

from application.ports.blob_store import BlobKey, BlobStore, checked_blob_key
from application.ports.errors import PortUnavailable
from application.ports.ping import Ping
from application.ports.upkeep import Upkeep

PORT: Final = "blob_store"

ABANDONED_AFTER: Final = 3600.0
"""Seconds after which a write that did not end is taken for dead; the largest blob takes a few."""

_INCOMING: Final = ".incoming"
_BLOB: Final = ".blob"
_ENTRY: Final = re.compile(r"([a-z0-9-]{1,64})(\.blob|_|)")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

_FANS: Final = (4, 7)
"""Characters of a segment that name its two fan-out folders. In a UUIDv7 they are its first 16 and 28 bits of
milliseconds: one folder for 50 days, and in it one for 17 minutes. So a folder stays small at any rate of
enrolment, and, unlike with hashes, walking through the folders by name is walking through the keys in order."""

_SHORTEST_FANNED: Final = 8
_TRIES: Final = 8
"""A writer whose folder was removed under it, as empty, makes it again; losing this often is a broken disk."""

_PING_LIMIT: Final = 2.0
_KEYS_A_BATCH: Final = 500


@final
class FilesystemBlobStore(BlobStore, Ping, Upkeep):
    """One file a blob, 0600, under a folder of 0700.

    The key `a/0199c1f2-.../b` is the file `a/0199_/0199c1f_/0199c1f2-.../b.blob`: segments are folders, long ones
    below two folders of their first characters. Names with a dot, an underscore or neither are blobs, fan-out
    folders and segments, so a key may be another one's beginning. A blob is written to `.incoming`, made
    durable, and renamed. Folders are opened one below the other and never through a symbolic link.
    """

    def __init__(self, root: Path) -> None:
        """Use `root`, which is made where it is missing. Raises `PortUnavailable`."""
        self._root = root
        with translated():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (root / _INCOMING).mkdir(mode=0o700, exist_ok=True)

    @property
    def name(self) -> str:
        return PORT

    async def put(self, key: BlobKey, content: bytes) -> None:
        checked_blob_key(key)
        await asyncio.to_thread(self._put, key, content)

    async def get(self, key: BlobKey) -> bytes | None:
        checked_blob_key(key)
        return await asyncio.to_thread(self._get, key)

    async def remove(self, key: BlobKey) -> None:
        checked_blob_key(key)
        await asyncio.to_thread(self._remove, key)

    async def keys(self, prefix: str) -> AsyncIterator[BlobKey]:
        walk = self._walk("", (), prefix)
        while batch := await asyncio.to_thread(_batch, walk):
            for key in batch:
                yield key

    async def ping(self) -> None:
        """Write a few bytes and read them back, since a disk that is full or read-only can still be looked at."""
        try:
            async with asyncio.timeout(_PING_LIMIT):
                await asyncio.to_thread(self._probe)
        except TimeoutError as error:
            raise PortUnavailable(PORT, "the file system does not answer") from error

    async def tidy(self) -> None:
        """Remove what interrupted writes left behind."""
        await asyncio.to_thread(self._sweep)

    def _put(self, key: BlobKey, content: bytes) -> None:
        folders, name = _path(key)
        with translated(), self._incoming() as incoming:
            temporary = _write(incoming, content)
            try:
                self._publish(incoming, temporary, folders, name)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=incoming)
                raise

    def _publish(self, incoming: int, temporary: str, folders: Sequence[str], name: str) -> None:
        for tries_left in reversed(range(_TRIES)):
            try:
                with self._opened(folders, create=True) as opened:
                    os.rename(temporary, name, src_dir_fd=incoming, dst_dir_fd=opened[-1])
                    os.fsync(opened[-1])
            except FileNotFoundError:
                if not tries_left:
                    raise
            else:
                return

    def _get(self, key: BlobKey) -> bytes | None:
        folders, name = _path(key)
        with translated():
            try:
                with self._opened(folders) as opened:
                    return _read(opened[-1], name)
            except FileNotFoundError:
                self._require_root()
                return None

    def _remove(self, key: BlobKey) -> None:
        folders, name = _path(key)
        with translated():
            try:
                with self._opened(folders) as opened:
                    os.unlink(name, dir_fd=opened[-1])
                    os.fsync(opened[-1])
                    _prune(opened, folders)
            except FileNotFoundError:
                self._require_root()

    def _probe(self) -> None:
        written = token_hex(16).encode()
        with translated(), self._incoming() as incoming:
            temporary = _write(incoming, written)
            try:
                if _read(incoming, temporary) != written:
                    raise PortUnavailable(PORT, "the file system does not give back what was written to it")
            finally:
                os.unlink(temporary, dir_fd=incoming)

    def _sweep(self) -> None:
        with translated(), self._incoming() as incoming:
            for name in _listed(incoming):
                with suppress(FileNotFoundError):
                    age = time.time() - os.stat(name, dir_fd=incoming, follow_symlinks=False).st_mtime
                    if age > ABANDONED_AFTER:
                        os.unlink(name, dir_fd=incoming)

    def _walk(self, above: str, folders: tuple[str, ...], prefix: str) -> Iterator[BlobKey]:
        """Yield the keys below a segment's folder, in order; `above` is the key so far, with its last '/'."""
        for relative, path in self._entries(above, folders, prefix):
            key = above + relative
            if key.endswith("/"):
                yield from self._walk(key, path, prefix)
            elif key.startswith(prefix):
                yield BlobKey(key)

    def _entries(self, above: str, folders: tuple[str, ...], prefix: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield blobs (`name`) and segments (`name/`) in the order of the keys that begin with them."""
        here: list[tuple[str, tuple[str, ...]]] = []
        fans: list[str] = []
        for name in self._names(folders):
            entry = _ENTRY.fullmatch(name)
            if entry is None or not _may_meet(above + entry[1], prefix):
                continue
            if entry[2] == "_":
                fans.append(name)
            else:
                here.append((entry[1] if entry[2] else f"{entry[1]}/", (*folders, name)))
        below = chain.from_iterable(self._entries(above, (*folders, fan), prefix) for fan in sorted(fans))
        # Short segments lie beside the fan-out folders and may belong between what is inside of them.
        return heapq.merge(sorted(here), below)

    def _names(self, folders: Sequence[str]) -> list[str]:
        with translated():
            try:
                with self._opened(folders) as opened:
                    return _listed(opened[-1])
            except FileNotFoundError:
                self._require_root()
                return []

    @contextmanager
    def _incoming(self) -> Iterator[int]:
        with self._opened((_INCOMING,)) as opened:
            yield opened[-1]

    @contextmanager
    def _opened(self, folders: Sequence[str], *, create: bool = False) -> Iterator[list[int]]:
        """Yield descriptors of the root and of each folder below it."""
        with ExitStack() as stack:
            opened = [os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
            stack.callback(os.close, opened[-1])
            for folder in folders:
                opened.append(_enter(opened[-1], folder, create=create))
                stack.callback(os.close, opened[-1])
            yield opened

    def _require_root(self) -> None:
        """Raise where the root itself is gone: then nothing is known, and nothing must read as not there."""
        os.close(os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the operating system says into `PortUnavailable`, without a path."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise PortUnavailable(PORT, f"the folder of the blob store cannot be used: {reason}") from error


def _path(key: BlobKey) -> tuple[tuple[str, ...], str]:
    """Return the folders that lead to a key's file, and the file's name."""
    *above, last = key.split("/")
    folders = [folder for segment in above for folder in (*_fans(segment), segment)]
    return (*folders, *_fans(last)), last + _BLOB


def _fans(segment: str) -> list[str]:
    return [f"{segment[:length]}_" for length in _FANS] if len(segment) >= _SHORTEST_FANNED else []


def _may_meet(beginning: str, prefix: str) -> bool:
    return beginning.startswith(prefix) or prefix.startswith(beginning)


def _batch(walk: Iterator[BlobKey]) -> list[BlobKey]:
    return list(islice(walk, _KEYS_A_BATCH))


def _enter(parent: int, folder: str, *, create: bool) -> int:
    try:
        return os.open(folder, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700, dir_fd=parent)
    os.fsync(parent)
    return os.open(folder, _FOLDER, dir_fd=parent)


def _write(incoming: int, content: bytes) -> str:
    """Write a new file, durable, and return its name; on failure nothing is left."""
    name = token_hex(16)
    try:
        with os.fdopen(os.open(name, _NEW, 0o600, dir_fd=incoming), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=incoming)
        raise
    return name


def _read(folder: int, name: str) -> bytes:
    with os.fdopen(os.open(name, _READ, dir_fd=folder), "rb") as file:
        return file.read()


def _listed(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _prune(opened: Sequence[int], folders: Sequence[str]) -> None:
    """Remove the folders that have become empty, from the last one up."""
    for parent, folder in reversed(list(zip(opened, folders, strict=False))):
        try:
            os.rmdir(folder, dir_fd=parent)
        except OSError:
            return
