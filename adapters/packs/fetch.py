"""Fetches single files: out of packages of the Python registry, out of archives, or by their URL."""

import gzip
import hashlib
import logging
import os
import ssl
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, assert_never, cast, final
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from unearth import Link, Package, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher as IndexSession
from unearth.fetchers.sync import PyPIClient
from unearth.preparer import HTTPErrors

from adapters.packs.indexes import IndexSettings, index_settings
from application.ports.model_packs import Progress
from domain.errors import PackCorrupt, PackError, PackUnavailable
from domain.model_pack import ArchiveSource, RegistrySource, Source, UrlSource

_log = logging.getLogger(__name__)
_CHUNK: Final = 1 << 18  # bytes; large enough that hashing and progress cost nothing beside the network
_SILENCE: Final = 60.0  # seconds a server may keep silent where nobody set anything else
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP answers after which it is worth asking again
_INDEX_ERRORS: Final[tuple[type[Exception], ...]] = (*HTTPErrors, OSError, ValueError)
_ARCHIVE_ERRORS: Final = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file as its source has it."""

    path: Path
    sha256: str
    """In hexadecimal, of what lies at `path`."""
    on_trust: bool
    """Whether no hash was known beforehand."""


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
                archive = self._package(source, folder, progress)
                name, member, expected = source.archive, source.member, source.member_sha256
                return _taken_out(archive, folder, progress, name=name, member=member, expected=expected)
            case ArchiveSource():
                archive, name = folder / f"archive-{_short(source.url)}", source.url.rpartition("/")[2]
                if not archive.exists():
                    self._file(source.url, archive, progress, expected=source.archive_sha256)
                member = source.member
                found = _taken_out(archive, folder, progress, name=name, member=member, expected=source.member_sha256)
                return replace(found, on_trust=found.on_trust and source.archive_sha256 is None)
            case UrlSource():
                target = folder / f"file-{_short(source.url)}"
                sha256 = self._file(source.url, target, progress, expected=source.sha256)
                return Fetched(path=target, sha256=sha256, on_trust=source.sha256 is None)
            case _:
                assert_never(source)

    def _file(self, url: str, target: Path, progress: Progress, *, expected: str | None) -> str:
        with self._client() as client:
            return self._download(client, url, target, progress, expected=expected, name=url.rpartition("/")[2])

    def _package(self, source: RegistrySource, folder: Path, progress: Progress) -> Path:
        archive = folder / f"archive-{source.archive_sha256[:16]}"
        if archive.exists():
            return archive
        wanted = f"{source.package} {source.version}"
        problems: list[PackError] = []
        with self._client() as client:
            for link in self._links(client, source, problems):
                try:
                    url, expected = link.url_without_fragment, source.archive_sha256
                    self._download(client, url, archive, progress, expected=expected, name=source.archive)
                except PackError as error:
                    problems.append(error)
                else:
                    return archive
        reasons = "; ".join(problem.message for problem in problems) or "no index has it"
        kind = PackCorrupt if any(isinstance(problem, PackCorrupt) for problem in problems) else PackUnavailable
        raise kind(f"{source.archive} ({wanted}) could not be fetched with the index settings of pip and uv: {reasons}")

    def _links(self, client: PyPIClient, source: RegistrySource, problems: list[PackError]) -> Iterator[Link]:
        """Every place that offers the very file, the user's own folders first."""
        for is_page, address in self._places(source.package):
            try:
                packages = self._offered(client, source, address, is_page=is_page)
            except _INDEX_ERRORS as error:
                problems.append(PackUnavailable(f"{_without_password(address)}: {_reason(error)}"))
                continue
            for link in (package.link for package in packages):
                declared = (link.hash_option or {}).get("sha256")
                if source.archive_sha256 in (declared or []) or (declared is None and link.filename == source.archive):
                    yield link
                elif link.filename == source.archive:
                    problems.append(
                        PackCorrupt(
                            f"{_without_password(address)} offers another {source.archive}: "
                            f"expected SHA-256 {source.archive_sha256}, its is {', '.join(declared or [])}"
                        )
                    )

    def _offered(self, client: PyPIClient, source: RegistrySource, address: str, *, is_page: bool) -> Sequence[Package]:
        finder = PackageFinder(
            # The class lacks nothing of unearth's protocol but takes more arguments than that names.
            cast(IndexSession, client),
            index_urls=[] if is_page else [address],
            find_links=[address] if is_page else [],
            ignore_compatibility=True,
        )
        for attempt in range(1, self._attempts):
            try:
                return list(finder.find_matches(f"{source.package}=={source.version}", allow_yanked=True))
            except HTTPErrors as error:
                _log.info("asking %s broke off, attempt %d: %s", _without_password(address), attempt, _reason(error))
                time.sleep(self._pause * 2 ** (attempt - 1))
        return list(finder.find_matches(f"{source.package}=={source.version}", allow_yanked=True))

    def _places(self, package: str) -> Iterator[tuple[bool, str]]:
        """(Whether it is a find-links page, address); local ones that are not there are passed over, as pip does."""
        for link in self._indexes.find_links:
            path = _local(link)
            if path is None or path.exists():
                yield True, link
        if self._indexes.no_index:
            return
        default = self._indexes.default_index or PackageFinder().sources[0]["url"]
        for index in dict.fromkeys((default, *self._indexes.extra_indexes)):
            path = _local(index)
            if path is None or (path / package.lower().replace("_", "-")).exists():
                yield False, index

    @contextmanager
    def _client(self) -> Iterator[PyPIClient]:
        settings = self._indexes
        context: ssl.SSLContext | bool = True  # the system's authorities, as pip does since 24.2
        if settings.certificates or settings.client_certificate:
            context = ssl.create_default_context(cafile=settings.certificates)
            if settings.client_certificate:
                context.load_cert_chain(settings.client_certificate)
        with PyPIClient(
            trusted_hosts=settings.trusted_hosts,
            verify=context,
            timeout=settings.timeout if settings.timeout is not None else _SILENCE,
            follow_redirects=True,
            proxy=settings.proxy,
        ) as client:
            # A service has nobody to ask for a password.
            client.auth = MultiDomainBasicAuth(
                prompting=False, index_urls=[url for url in (settings.default_index, *settings.extra_indexes) if url]
            )
            yield client

    def _download(
        self, client: PyPIClient, url: str, target: Path, progress: Progress, *, expected: str | None, name: str
    ) -> str:
        """Stream to `target` and return the SHA-256; `target` exists only once it is whole and verified."""
        partial = target.with_name(f"{target.name}.part")
        for attempt in range(1, self._attempts + 1):
            try:
                found = self._streamed(client, url, partial, f"downloading {name}", progress)
                break
            except _AskAgain as error:
                partial.unlink(missing_ok=True)
                if attempt == self._attempts:
                    tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                    raise PackUnavailable(f"{_without_password(url)} after {tries}: {error}") from error
                _log.info("downloading %s broke off, attempt %d: %s", _without_password(url), attempt, error)
                time.sleep(self._pause * 2 ** (attempt - 1))
        else:
            raise PackUnavailable(f"{_without_password(url)}: no attempt was allowed")
        _require(found, expected, f"{name} from {_without_password(url)}", partial)
        partial.replace(target)
        return found

    def _streamed(self, client: PyPIClient, url: str, partial: Path, stage: str, progress: Progress) -> str:
        try:
            # Without compression on the way: an archive's length and hash are those of the bytes sent.
            with client.get_stream(url, headers={"Accept-Encoding": "identity"}) as response:
                if response.status_code in _BUSY:
                    raise _AskAgain(f"HTTP {response.status_code}")
                if not response.is_success:
                    raise PackUnavailable(f"{_without_password(url)}: HTTP {response.status_code}")
                length = response.headers.get("Content-Length")
                total = int(length) if length and length.isdecimal() else None
                with partial.open("wb") as file:
                    sha256, done = _copied(response.iter_bytes(_CHUNK), file, lambda done: progress(stage, done, total))
        except HTTPErrors as error:
            raise _AskAgain(_reason(error)) from error
        if total is not None and done != total:
            raise _AskAgain(f"{done} of {total} bytes came")
        return sha256


class _AskAgain(Exception):
    """The connection or the server failed in a way that may pass."""


def _taken_out(
    archive: Path, folder: Path, progress: Progress, *, name: str, member: str, expected: str | None
) -> Fetched:
    """Copy one file out of a zip or tar archive; nothing else in it is ever written to disk."""
    target = folder / f"member-{_short(name + member)}"
    stage = f"taking {member.rpartition('/')[2]} out of {name}"
    try:
        with _opened(archive, member) as (inside, size), target.open("wb") as file:
            sha256, _ = _copied(iter(lambda: inside.read(_CHUNK), b""), file, lambda done: progress(stage, done, size))
    except KeyError as error:
        raise PackCorrupt(f"{name} does not hold {member}") from error
    except _ARCHIVE_ERRORS as error:
        raise PackCorrupt(f"{member} could not be read from {name}: {_reason(error)}") from error
    _require(sha256, expected, f"{member} in {name}", target)
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


def _copied(chunks: Iterator[bytes], file: IO[bytes], report: Callable[[int], None]) -> tuple[str, int]:
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


def _require(found: str, expected: str | None, what: str, path: Path) -> None:
    if expected is not None and found != expected:
        path.unlink(missing_ok=True)
        raise PackCorrupt(f"{what} is not what the manifest names: expected SHA-256 {expected}, came {found}")


def _local(address: str) -> Path | None:
    """The path behind a plain path or a file URL; None for what lies elsewhere."""
    if address.startswith("file:"):
        return Path(url2pathname(urlsplit(address).path))
    return None if "://" in address else Path(address)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return urlunsplit(parts._replace(query="", fragment=""))
    return urlunsplit(parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}", query="", fragment=""))


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
