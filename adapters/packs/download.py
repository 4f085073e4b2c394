"""Downloads from a package index or a URL, as the settings of pip and uv say."""

import logging
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast, final
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from unearth import Link, Package, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher as IndexSession
from unearth.fetchers.sync import PyPIClient
from unearth.preparer import HTTPErrors

from adapters.packs.indexes import IndexSettings
from adapters.packs.verified_copy import CHUNK, copied, reason, require
from application.ports.model_packs import Progress
from domain.errors import PackCorrupt, PackError, PackUnavailable
from domain.model_pack import RegistrySource

_log = logging.getLogger(__name__)
_SILENCE: Final = 60.0  # seconds a server may keep silent where nobody set anything else
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP answers after which it is worth asking again
_INDEX_ERRORS: Final[tuple[type[Exception], ...]] = (*HTTPErrors, OSError, ValueError)


@final
class Download:
    """Gets whole files, each verified before it is at its place. Raises `PackUnavailable` and `PackCorrupt`."""

    def __init__(self, indexes: IndexSettings, *, attempts: int, pause: float) -> None:
        self._indexes = indexes
        self._attempts = attempts
        self._pause = pause

    def file(self, url: str, target: Path, progress: Progress, *, expected: str | None) -> str:
        """Put what is at `url` there, and return its SHA-256."""
        with self._client() as client:
            return self._put(client, url, target, progress, expected=expected, name=url.rpartition("/")[2])

    def package(self, source: RegistrySource, archive: Path, progress: Progress) -> None:
        """Put the package's archive there, from whichever index has it."""
        wanted = f"{source.package} {source.version}"
        problems: list[PackError] = []
        with self._client() as client:
            for link in self._links(client, source, problems):
                try:
                    url, expected = link.url_without_fragment, source.archive_sha256
                    self._put(client, url, archive, progress, expected=expected, name=source.archive)
                except PackError as error:
                    problems.append(error)
                else:
                    return
        reasons = "; ".join(problem.message for problem in problems) or "no index has it"
        kind = PackCorrupt if any(isinstance(problem, PackCorrupt) for problem in problems) else PackUnavailable
        raise kind(f"{source.archive} ({wanted}) could not be fetched with the index settings of pip and uv: {reasons}")

    def _links(self, client: PyPIClient, source: RegistrySource, problems: list[PackError]) -> Iterator[Link]:
        """Every place that offers the very file, the user's own folders first."""
        for is_page, address in self._places(source.package):
            try:
                packages = self._offered(client, source, address, is_page=is_page)
            except _INDEX_ERRORS as error:
                problems.append(PackUnavailable(f"{_without_password(address)}: {reason(error)}"))
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
                _log.info("asking %s broke off, attempt %d: %s", _without_password(address), attempt, reason(error))
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

    def _put(
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
        require(found, expected, f"{name} from {_without_password(url)}", partial)
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
                    sha256, done = copied(response.iter_bytes(CHUNK), file, lambda done: progress(stage, done, total))
        except HTTPErrors as error:
            raise _AskAgain(reason(error)) from error
        if total is not None and done != total:
            raise _AskAgain(f"{done} of {total} bytes came")
        return sha256


class _AskAgain(Exception):
    """The connection or the server failed in a way that may pass."""


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
