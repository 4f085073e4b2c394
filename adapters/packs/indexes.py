"""Which package indexes the user has set, for pip or for uv.

Files are only ever taken by their SHA-256, so it is safe to ask every index that anybody configured: none of them can
slip in another file. Hence indexes, find-links and trusted hosts of all sources are put together, while of what can
be said once (the default index, the certificates) the first word counts.

Sources: pip's user guide, "Configuration"; uv's reference, "Settings", "Environment variables".
"""

import configparser
import logging
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

_log = logging.getLogger(__name__)
_YES = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IndexSettings:
    """Where packages are looked for. Empty where nobody said anything: the library's default index then.

    Shown without its values: URLs of indexes and proxies often hold passwords.
    """

    default_index: str | None = None
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    """Folders, files or URLs of pages that link to packages."""
    trusted_hosts: tuple[str, ...] = ()
    """Hosts whose certificates are not checked."""
    certificates: Path | None = None
    """A PEM file that replaces the system's certificate authorities."""
    client_certificate: Path | None = None
    proxy: str | None = None
    timeout: float | None = None
    """Seconds that a server may keep silent."""
    no_index: bool = False
    """Only `find_links` are looked at."""

    def then(self, later: Self) -> Self:
        """Put `later` behind: it adds to what can be several and fills what is not said yet."""
        return type(self)(
            default_index=self.default_index or later.default_index,
            extra_indexes=_unique(self.extra_indexes, later.extra_indexes),
            find_links=_unique(self.find_links, later.find_links),
            trusted_hosts=_unique(self.trusted_hosts, later.trusted_hosts),
            certificates=self.certificates or later.certificates,
            client_certificate=self.client_certificate or later.client_certificate,
            proxy=self.proxy or later.proxy,
            timeout=self.timeout if self.timeout is not None else later.timeout,
            no_index=self.no_index or later.no_index,
        )


def index_settings(environment: Mapping[str, str], explicit: IndexSettings | None = None) -> IndexSettings:
    """Collect what was set: explicitly, then uv's variables, pip's variables, pip's files, uv's files.

    Files that cannot be read are passed over with a warning in the log: pip and uv say more about them.
    """
    settings = explicit or IndexSettings()
    for found in chain(
        (_uv_variables(environment), _pip_variables(environment)),
        map(_pip_file, _Places(environment).pip_files()),
        map(_uv_file, _Places(environment).uv_files()),
    ):
        settings = settings.then(found)
    return settings


def _uv_variables(environment: Mapping[str, str]) -> IndexSettings:
    named = [_named_index(word, environment) for word in environment.get("UV_INDEX", "").split()]
    default = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    return IndexSettings(
        default_index=_named_index(default, environment) if default else None,
        extra_indexes=(*named, *environment.get("UV_EXTRA_INDEX_URL", "").split()),
        find_links=tuple(environment.get("UV_FIND_LINKS", "").replace(",", " ").split()),
        trusted_hosts=tuple(environment.get("UV_INSECURE_HOST", "").split()),
        timeout=_seconds(environment.get("UV_HTTP_TIMEOUT")),
        no_index=environment.get("UV_NO_INDEX", "").lower() in _YES,
    )


def _named_index(text: str, environment: Mapping[str, str]) -> str:
    """`name=url` or `url`; uv takes the credentials of a named index from `UV_INDEX_<NAME>_USERNAME` and so on."""
    name, equals, url = text.partition("=")
    if not equals or "/" in name:
        return text
    prefix = f"UV_INDEX_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"
    return _with_credentials(url, environment.get(f"{prefix}_USERNAME"), environment.get(f"{prefix}_PASSWORD"))


def _with_credentials(url: str, user: str | None, password: str | None) -> str:
    if user is None and password is None:
        return url
    parts = urlsplit(url)
    credentials = quote(user or "", safe="") + (f":{quote(password, safe='')}" if password is not None else "")
    return urlunsplit(parts._replace(netloc=f"{credentials}@{parts.netloc.rpartition('@')[2]}"))


def _pip_variables(environment: Mapping[str, str]) -> IndexSettings:
    prefix = "PIP_"
    return _pip_settings(
        {
            name[len(prefix) :].lower().replace("_", "-"): value
            for name, value in environment.items()
            if name.startswith(prefix)
        }
    )


def _pip_file(path: Path) -> IndexSettings:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return IndexSettings()
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        _log.warning("pip's configuration %s cannot be read: %s", path, error)
        return IndexSettings()
    settings = IndexSettings()
    # A command's own section comes before [global], as in pip.
    for section in ("download", "install", "global"):
        if parser.has_section(section):
            settings = settings.then(
                _pip_settings({key.replace("_", "-"): value for key, value in parser.items(section)})
            )
    return settings


def _pip_settings(values: Mapping[str, str]) -> IndexSettings:
    """Read options by pip's long names, in lower case and with dashes."""
    return IndexSettings(
        default_index=values.get("index-url", "").strip() or None,
        extra_indexes=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(values.get("find-links", "").split()),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        certificates=_path(values.get("cert")),
        client_certificate=_path(values.get("client-cert")),
        proxy=values.get("proxy", "").strip() or None,
        timeout=_seconds(values.get("timeout") or values.get("default-timeout")),
        no_index=values.get("no-index", "").strip().lower() in _YES,
    )


def _uv_file(path: Path) -> IndexSettings:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return IndexSettings()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        _log.warning("uv's configuration %s cannot be read: %s", path, error)
        return IndexSettings()
    try:
        return _uv_table(table).then(_uv_table(table.get("pip", {})))
    except (AttributeError, KeyError, TypeError) as error:  # something of another shape than uv's reference gives
        _log.warning("uv's configuration %s cannot be understood: %r", path, error)
        return IndexSettings()


def _uv_table(table: Mapping[str, Any]) -> IndexSettings:
    indexes = [index for index in table.get("index", ()) if not index.get("explicit", False)]
    flat = [index["url"] for index in indexes if index.get("format") == "flat"]
    simple = [index for index in indexes if index.get("format", "simple") == "simple"]
    return IndexSettings(
        default_index=next((index["url"] for index in simple if index.get("default")), table.get("index-url")),
        extra_indexes=(
            *(index["url"] for index in simple if not index.get("default")),
            *table.get("extra-index-url", ()),
        ),
        find_links=(*table.get("find-links", ()), *flat),
        trusted_hosts=tuple(table.get("allow-insecure-host", ())),
        no_index=bool(table.get("no-index", False)),
    )


@dataclass(frozen=True, slots=True)
class _Places:
    """Where pip and uv keep their files on this platform; the files that count more come first."""

    environment: Mapping[str, str]
    platform: str = field(default=sys.platform)

    def pip_files(self) -> Iterator[Path]:
        named = self.environment.get("PIP_CONFIG_FILE")
        if named in {"/dev/null", "nul"}:  # os.devnull: pip then reads no file at all
            return
        name = "pip.ini" if self.platform == "win32" else "pip.conf"
        if named:
            yield Path(named)
        yield Path(sys.prefix, name)
        yield from (folder / "pip" / name for folder in self._user_folders())
        yield Path(self._home(), "pip" if self.platform == "win32" else ".pip", name)
        yield from (folder / "pip" / name for folder in self._site_folders())
        if self.platform not in {"win32", "darwin"}:
            yield Path("/etc", name)

    def uv_files(self) -> Iterator[Path]:
        if self.environment.get("UV_NO_CONFIG", "").lower() in _YES:
            return
        if named := self.environment.get("UV_CONFIG_FILE"):
            yield Path(named)
            return
        yield from (folder / "uv" / "uv.toml" for folder in chain(self._user_folders(), self._site_folders()))
        if self.platform != "win32":
            yield Path("/etc/uv/uv.toml")

    def _home(self) -> Path:
        home = self.environment.get("USERPROFILE" if self.platform == "win32" else "HOME")
        return Path(home) if home else Path.home()

    def _user_folders(self) -> Iterator[Path]:
        if self.platform == "win32":
            if roaming := self.environment.get("APPDATA"):
                yield Path(roaming)
            return
        if self.platform == "darwin":
            yield self._home() / "Library" / "Application Support"
        yield Path(self.environment.get("XDG_CONFIG_HOME") or self._home() / ".config")

    def _site_folders(self) -> Iterator[Path]:
        if self.platform == "win32":
            yield Path(self.environment.get("PROGRAMDATA", r"C:\ProgramData"))
            return
        if self.platform == "darwin":
            yield Path("/Library/Application Support")
        yield from map(Path, filter(None, self.environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")))


def _path(text: str | None) -> Path | None:
    return Path(text.strip()).expanduser() if text and text.strip() else None


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _unique(*groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain(*groups)))
