"""Galleries as files: what is read and written, and how nobody sees half of it."""

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray


class Gallery(NamedTuple):
    """What one file holds, in the order of the references."""

    references: list[UUID]
    people: list[UUID]
    vectors: NDArray[np.float32]
    """Shape (N, D)."""


class GalleryFiles:
    """A folder with one file a gallery, `<id>.npz`, and a lock that threads and processes share (POSIX only).

    A file is written beside its place, made durable and renamed, so a process that is killed leaves the old one or
    the new one. A change of several galleries is several files: killed between two of them, it is half done.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        """Make the folder, for its owner alone. Raises `OSError`."""
        self._folder = folder
        self._empty = Gallery([], [], np.zeros((0, dimension), dtype=np.float32))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / ".lock").touch(mode=0o600)

    def read(self, gallery: UUID) -> Gallery:
        """Read one; without a file it is empty. Raises `OSError` where the folder is gone: that is not empty."""
        with self._locked(fcntl.LOCK_SH):
            return self._read(gallery)

    def change(self, *, take: Collection[UUID], put: Mapping[UUID, Gallery]) -> None:
        """Take references out of all galleries, then add rows to theirs. Reads all, writes those that change."""
        with self._locked(fcntl.LOCK_EX):
            there = {UUID(path.stem) for path in self._folder.glob("*.npz")}
            for gallery in sorted(there | put.keys()):
                before = self._read(gallery)
                kept = [row for row, reference in enumerate(before.references) if reference not in take]
                if gallery in put or len(kept) < len(before.references):
                    self._write(gallery, _merged(_rows(before, kept), put.get(gallery, self._empty)))

    def remove(self, gallery: UUID) -> None:
        """Remove one; nothing happens where there is none."""
        with self._locked(fcntl.LOCK_EX):
            self._path(gallery).unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `OSError` where nothing can be written. Waits for nobody."""
        (self._folder / ".check").write_bytes(b"")

    def _read(self, gallery: UUID) -> Gallery:
        try:
            with np.load(self._path(gallery), allow_pickle=False) as arrays:
                return Gallery(_ids(arrays["references"]), _ids(arrays["people"]), arrays["vectors"])
        except FileNotFoundError:
            return self._empty

    def _write(self, gallery: UUID, rows: Gallery) -> None:
        half = self._folder / ".half"  # one is enough: who writes is alone
        with half.open("wb") as file:
            np.savez(file, references=_bytes(rows.references), people=_bytes(rows.people), vectors=rows.vectors)
            file.flush()
            os.fsync(file.fileno())
        half.replace(self._path(gallery))

    def _path(self, gallery: UUID) -> Path:
        return self._folder / f"{gallery}.npz"

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        # Opened anew each time: a lock belongs to what was opened, so this one parts threads too.
        with (self._folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, how)
            yield


def _rows(gallery: Gallery, which: list[int]) -> Gallery:
    return Gallery(
        [gallery.references[row] for row in which], [gallery.people[row] for row in which], gallery.vectors[which]
    )


def _merged(one: Gallery, other: Gallery) -> Gallery:
    both = Gallery(
        one.references + other.references, one.people + other.people, np.concatenate([one.vectors, other.vectors])
    )
    return _rows(both, sorted(range(len(both.references)), key=both.references.__getitem__))


def _bytes(ids: list[UUID]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(one.bytes for one in ids), dtype=np.uint8).reshape(-1, 16)


def _ids(rows: NDArray[np.uint8]) -> list[UUID]:
    return [UUID(bytes=row.tobytes()) for row in rows]
