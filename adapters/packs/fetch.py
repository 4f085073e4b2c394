"""Fetches single files: out of packages of the Python registry, out of archives, or by their URL."""

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Protocol, assert_never, final

from adapters.packs.indexes import IndexSettings, index_settings
from adapters.packs.verified_copy import CHUNK, copied, reason, require
from application.ports.model_packs import Progress
from domain.errors import PackCorrupt
from domain.model_pack import ArchiveSource, RegistrySource, Source, UrlSource

_ARCHIVE_ERRORS: Final = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file as its source has it."""

    path: Path
    sha256: str
    """In hexadecimal, of what lies at `path`."""
    on_trust: bool
    """Whether no hash was known beforehand."""


class _Downloads(Protocol):
    """What `adapters.packs.download.Download` is: imported where something is downloaded, not before."""

    def file(self, url: str, target: Path, progress: Progress, *, expected: str | None) -> str: ...

    def package(self, source: RegistrySource, archive: Path, progress: Progress) -> None: ...


@final
class Fetcher:
    """Honours the index settings of pip and uv, needs neither of them, and runs no code of what it fetches."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        indexes: IndexSettings | None = None,
        attempts: int = 3,
        pause: float = 0.5,
    ) -> None:
        """Read the index settings.

        Args:
            environment: the process's variables.
            indexes: what the service's own settings say; comes before all else.
            attempts: how often a broken connection is tried again, this included.
            pause: seconds before the second attempt; doubles with each.
        """
        self._indexes = index_settings(environment, indexes)
        self._attempts = attempts
        self._pause = pause

    def fetch(self, source: Source, folder: Path, progress: Progress) -> Fetched:
        """Put the file that `source` names into `folder`, whole and verified.

        An archive that an earlier call put there is used again, so `folder` must be the caller's alone.

        Raises:
            PackUnavailable: nobody had it, or the connection broke each time.
            PackCorrupt: what came has another hash, or does not hold the file.
        """
        match source:
            case RegistrySource():
                archive = folder / f"archive-{source.archive_sha256[:16]}"
                if not archive.exists():
                    self._download().package(source, archive, progress)
                name, member, expected = source.archive, source.member, source.member_sha256
                return _taken_out(archive, folder, progress, name=name, member=member, expected=expected)
            case ArchiveSource():
                archive, name = folder / f"archive-{_short(source.url)}", source.url.rpartition("/")[2]
                if not archive.exists():
                    self._download().file(source.url, archive, progress, expected=source.archive_sha256)
                member = source.member
                found = _taken_out(archive, folder, progress, name=name, member=member, expected=source.member_sha256)
                return replace(found, on_trust=found.on_trust and source.archive_sha256 is None)
            case UrlSource():
                target = folder / f"file-{_short(source.url)}"
                sha256 = self._download().file(source.url, target, progress, expected=source.sha256)
                return Fetched(path=target, sha256=sha256, on_trust=source.sha256 is None)
            case _:
                assert_never(source)

    def _download(self) -> _Downloads:
        from adapters.packs.download import Download  # noqa: PLC0415 - its libraries take longer than a command

        return Download(self._indexes, attempts=self._attempts, pause=self._pause)


def _taken_out(
    archive: Path, folder: Path, progress: Progress, *, name: str, member: str, expected: str | None
) -> Fetched:
    """Copy one file out of a zip or tar archive; nothing else in it is ever written to disk."""
    target = folder / f"member-{_short(name + member)}"
    stage = f"taking {member.rpartition('/')[2]} out of {name}"
    try:
        with _opened(archive, member) as (inside, size), target.open("wb") as file:
            sha256, _ = copied(iter(lambda: inside.read(CHUNK), b""), file, lambda done: progress(stage, done, size))
    except KeyError as error:
        raise PackCorrupt(f"{name} does not hold {member}") from error
    except _ARCHIVE_ERRORS as error:
        raise PackCorrupt(f"{member} could not be read from {name}: {reason(error)}") from error
    require(sha256, expected, f"{member} in {name}", target)
    return Fetched(path=target, sha256=sha256, on_trust=expected is None)


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """A member and its size in bytes. Raises `KeyError` where it is not there."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            info = next((info for info in zipped.infolist() if _is_named(info.filename, member)), None)
            if info is None:
                raise KeyError(member)
            with zipped.open(info) as inside:
                yield inside, info.file_size
        return
    with tarfile.open(archive, "r:*") as tarred:
        # One pass that ends at the member: the list of a packed archive costs unpacking all of it.
        entry = next((entry for entry in tarred if entry.isreg() and _is_named(entry.name, member)), None)
        inside_tar = None if entry is None else tarred.extractfile(entry)
        if entry is None or inside_tar is None:
            raise KeyError(member)
        with inside_tar:
            yield inside_tar, entry.size


def _is_named(path: str, member: str) -> bool:
    return path == member or path.endswith(f"/{member}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
