"""Copies bytes to the disk for good, holds them against the hash that was expected, and words what went wrong."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from domain.errors import PackCorrupt

CHUNK: Final = 1 << 18
"""Bytes; large enough that hashing and progress cost nothing beside the network."""


def copied(chunks: Iterator[bytes], file: IO[bytes], report: Callable[[int], None]) -> tuple[str, int]:
    """Write everything down for good; return its SHA-256 and its length in bytes."""
    digest, done = hashlib.sha256(), 0
    report(0)
    for chunk in chunks:
        file.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        report(done)
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest(), done


def require(found: str, expected: str | None, what: str, path: Path) -> None:
    """Remove what is at `path` and raise `PackCorrupt` where its SHA-256 is not the expected one; None: any is."""
    if expected is not None and found != expected:
        path.unlink(missing_ok=True)
        raise PackCorrupt(f"{what} is not what the manifest names: expected SHA-256 {expected}, came {found}")


def reason(error: BaseException) -> str:
    """Return an error's words, its kind where it has none."""
    return str(error) or type(error).__name__
