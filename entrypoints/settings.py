"""Every setting, read once, here and nowhere else.

`FACEPASS_` in front, `__` between levels: `FACEPASS_HTTP__PORT=8000`. The environment goes before the file
`.env`. A wrong value, and a name that is none, stop the start with a message that names the setting.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import msgspec
import platformdirs
from dotenv import dotenv_values

PREFIX = "FACEPASS_"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Megapixels = Annotated[float, msgspec.Meta(gt=0, le=10_000)]


class SettingsError(Exception):
    """A setting is wrong or missing; the message names it as the operator wrote it."""


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record."""

    url: str | None = None
    """postgresql://user:password@host:5432/name; empty: a private server in the data folder."""
    pool_size: Positive = 6
    """Connections for transactions, for single reads and for the vector index, at most: as many for each, and one more
    for health. A server and two commands that use all of theirs fit into the private server's 60."""
    timeout: Seconds = 10.0


class FaceEmbedderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The face model."""

    backend: Literal["onnx"] = "onnx"
    pack: str = "open"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Images worked on at once, one thread each; 0: one a core."""
    detection_size: Annotated[int, msgspec.Meta(ge=64, le=4096)] = 640
    """Longest side in pixels at which faces are looked for; small images are never enlarged."""
    queue_limit: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Images that may wait; past it the answer is 503."""
    queue_wait: Seconds = 5.0
    """Seconds that an image may wait; past it the answer is 503."""


class VectorIndexSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nearest-neighbour search."""

    backend: Literal["pgvector"] = "pgvector"
    url: str | None = None
    """A PostgreSQL with pgvector; empty: the main database."""
    exact_up_to: Positive | None = None
    """References of a gallery up to which search is exact; empty: as measured."""


class BlobStoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Kept images, sealed."""

    backend: Literal["filesystem"] = "filesystem"
    path: Path | None = None
    """Empty: `blobs` in the data folder."""


class JobQueueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Work that is done later."""

    backend: Literal["in_process"] = "in_process"
    upkeep_seconds: Seconds = 2.0
    """How often what was left undone is looked for."""


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
    """Megapixels being decoded at one time, in the whole server."""


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The door."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    """0: any free one."""
    processes: Positive = 1
    max_body_bytes: Positive = 64 * 1024 * 1024
    """Of a whole request: several images in one call."""
    docs: bool = True
    """Serve /docs and /openapi.json."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of them."""

    environment: Literal["development", "production"] = "development"
    data_dir: Path | None = None
    master_key_file: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    database: DatabaseSettings = DatabaseSettings()
    face_embedder: FaceEmbedderSettings = FaceEmbedderSettings()
    vector_index: VectorIndexSettings = VectorIndexSettings()
    blob_store: BlobStoreSettings = BlobStoreSettings()
    job_queue: JobQueueSettings = JobQueueSettings()
    models: ModelsSettings = ModelsSettings()
    image: ImageSettings = ImageSettings()
    http: HttpSettings = HttpSettings()

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
    for folder in folders:
        inner = {field.name: field.type for field in msgspec.structs.fields(struct)}.get(folder)
        if not (isinstance(inner, type) and issubclass(inner, msgspec.Struct)):
            raise SettingsError(f"{name} is no setting. {_nearest(name)}")
        struct = inner
        here = here.setdefault(folder, {})  # type: ignore[assignment]  # only folders are put at folders' names
    types = {field.name: field.type for field in msgspec.structs.fields(struct)}
    if leaf not in types:
        raise SettingsError(f"{name} is no setting. {_nearest(name)}")
    if value.strip():
        here[leaf] = _split(value) if _is_list(types[leaf]) else value.strip()


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
    if settings.http.processes > 1:
        raise SettingsError(
            f"{PREFIX}HTTP__PROCESSES: more than one process needs a queue and a cache that they share; those in the "
            "process would multiply limits and miss revocations. Use 1"
        )
    if settings.image.budget_megapixels < settings.image.max_megapixels:
        raise SettingsError(
            f"{PREFIX}IMAGE__BUDGET_MEGAPIXELS: must be at least {PREFIX}IMAGE__MAX_MEGAPIXELS, "
            "or the largest image allowed could never be decoded"
        )
    key, data = settings.master_key_path, settings.data_path
    if key.is_relative_to(data):
        raise SettingsError(
            f"{PREFIX}MASTER_KEY_FILE: lies inside the data folder; a copy of the folder would hold the key to itself"
        )


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
