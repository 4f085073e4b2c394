import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Final, final

import msgspec

from adapters.packs.fetch import Fetched, Fetcher
from adapters.packs.manifest import read_manifest
from application.ports.model_packs import ModelPacks, Progress
from domain.errors import PackCorrupt, PackError, PackMissing, PackNotCommercial, PackUnavailable, UnknownPack
from domain.model_pack import (
    ArchiveSource,
    FileReport,
    ModelPack,
    PackReport,
    PackState,
    PackStatus,
    Part,
    RegistrySource,
    UrlSource,
)

_log = logging.getLogger(__name__)
_BUILT_IN: Final = Path(__file__).parent
_RECORD: Final = "manifest.json"
_BUILDING: Final = ".building-"

CONVERTERS: Final[Mapping[str, str]] = {
    "centerface": "adapters.packs.convert_centerface:convert_centerface",
    "dlib_resnet": "adapters.packs.convert_dlib_resnet:convert_dlib_resnet",
}
"""By name; imported when a pull needs one, since onnx costs every other start 0.2 s and 20 MB for nothing."""


class _FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    file: str
    sha256: str
    bytes: int
    source_sha256: str
    recipe: str
    on_trust: bool


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a build wrote down, as `manifest.json` beside the finished files."""

    format: int
    pack: str
    built_at: datetime
    files: dict[str, _FileRecord]


@final
class PackRegistry(ModelPacks):
    """Manifests of the service and of `<cache>/packs`; finished packs in `<cache>/<name>@<version>`."""

    def __init__(self, cache_dir: Path, *, commercial_only: bool, fetcher: Fetcher) -> None:
        """Touch nothing yet.

        Args:
            cache_dir: made by the first pull.
            commercial_only: refuse to pull and to load what may not be used commercially.
            fetcher: gets the files.
        """
        self._cache = cache_dir
        self._commercial_only = commercial_only
        self._fetcher = fetcher

    def listed(self) -> Sequence[PackStatus]:
        """Manifests are read anew each time, so a file that was put into `<cache>/packs` is seen at once."""
        return [self._status(pack) for _, pack in sorted(self._definitions().items())]

    def get(self, name: str) -> ModelPack:
        """Hashes that were taken on trust come from the record of the pull."""
        pack = self._definition(name)
        try:
            record = self._record(pack)
        except PackError:
            return pack
        return replace(pack, parts=tuple(_pinned(part, record.files.get(part.name)) for part in pack.parts))

    def pull(self, name: str, progress: Progress) -> PackStatus:
        """Builds in a folder of its own under a lock of the whole cache, then renames."""
        pack = self._definition(name)
        self._require_allowed(pack)
        again = f"nothing of it was kept; once that is mended: facepass models pull {pack.name}"
        try:
            if (before := self._status(pack)).state is PackState.READY:
                return before
            self._cache.mkdir(parents=True, exist_ok=True)
            with self._locked(progress):
                for leftover in self._cache.glob(f"{_BUILDING}*"):
                    shutil.rmtree(leftover)
                if self._status(pack).state is not PackState.READY:
                    self._build(pack, progress)
        except PackError as error:
            raise type(error)(f"{pack.id}: {error.message}; {again}") from error
        except OSError as error:
            raise PackUnavailable(f"{pack.id} could not be kept in {self._cache}: {error}; {again}") from error
        status = self._status(pack)
        for warning in status.warnings:
            _log.warning("%s", warning)
        return status

    def verify(self, name: str) -> PackReport:
        """A file that is kept as it was fetched is held against the manifest rather than against the record."""
        return self._report(self._definition(name))

    def files(self, name: str) -> Mapping[str, Path]:
        """Takes about 25 ms for the 30 MB of the `open` pack."""
        pack = self._definition(name)
        self._require_allowed(pack)
        report = self._report(pack)
        if not report.intact:
            wrong = [
                f"{file.file} is missing"
                if file.found is None
                else f"{file.file} has SHA-256 {file.found}, recorded was {file.expected}"
                for file in report.files
                if not file.intact
            ]
            raise PackCorrupt(
                f"{pack.id} in {self._folder(pack)} cannot be used: {'; '.join((*report.problems, *wrong))}. "
                f"Make it anew: facepass models pull {pack.name}"
            )
        return {part.name: self._folder(pack) / part.weights.file for part in pack.parts}

    def _definitions(self) -> dict[str, ModelPack]:
        packs: dict[str, ModelPack] = {}
        read_from: dict[str, Path] = {}
        for path in (*sorted(_BUILT_IN.glob("*.toml")), *sorted((self._cache / "packs").glob("*.toml"))):
            pack = read_manifest(path)
            if pack.name in packs:
                raise PackCorrupt(f"two manifests are called {pack.name}: {read_from[pack.name]} and {path}")
            packs[pack.name], read_from[pack.name] = pack, path
        return packs

    def _definition(self, name: str) -> ModelPack:
        packs = self._definitions()
        wanted, at, _ = name.partition("@")
        if wanted not in packs or (at and packs[wanted].id != name):
            known = ", ".join(pack.id for _, pack in sorted(packs.items()))
            raise UnknownPack(f"no model pack is called {name}; there are: {known}")
        return packs[wanted]

    def _require_allowed(self, pack: ModelPack) -> None:
        if self._commercial_only and not pack.commercial:
            terms = "; ".join(
                f"{part.name} {part.weights.licence}" for part in pack.parts if not part.weights.commercial
            )
            raise PackNotCommercial(
                f"{pack.id} may not be used commercially ({terms}), and FACEPASS_MODELS__COMMERCIAL_ONLY is set"
            )

    def _folder(self, pack: ModelPack) -> Path:
        return self._cache / pack.id

    def _record(self, pack: ModelPack) -> _Record:
        """Raises `PackMissing` or `PackCorrupt`."""
        folder = self._folder(pack)
        if not folder.is_dir():
            raise PackMissing(f"{pack.id} is not in {self._cache}: facepass models pull {pack.name}")
        try:
            return msgspec.json.decode((folder / _RECORD).read_bytes(), type=_Record)
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            raise PackCorrupt(f"the record {folder / _RECORD} cannot be read: {error}") from error

    def _report(self, pack: ModelPack) -> PackReport:
        try:
            record = self._record(pack)
        except PackCorrupt as error:
            return PackReport(pack=pack, files=(), problems=(error.message,))
        problems = [
            f"{part.name} was built from another manifest"
            for part in pack.parts
            if (kept := record.files.get(part.name)) is None
            or (kept.recipe, kept.file) != (part.weights.recipe, part.weights.file)
        ]
        reports = tuple(
            FileReport(
                part=part.name,
                file=part.weights.file,
                # Where the manifest itself knows the finished file, the record need not be believed.
                expected=(part.weights.source_sha256 if part.weights.converter is None else None) or kept.sha256,
                found=_sha256(self._folder(pack) / part.weights.file),
            )
            for part in pack.parts
            if (kept := record.files.get(part.name)) is not None
        )
        return PackReport(pack=pack, files=reports, problems=tuple(problems))

    def _status(self, pack: ModelPack) -> PackStatus:
        try:
            report = self._report(pack)
        except PackMissing:
            return PackStatus(pack=pack, state=PackState.ABSENT, warnings=())
        if not report.intact:
            return PackStatus(pack=pack, state=PackState.CORRUPT, warnings=report.problems)
        warnings = tuple(
            f"{pack.id}: nobody gave a hash for {kept.file}; it is pinned to what the first pull brought, "
            f"SHA-256 {kept.source_sha256}. Compare it with its publisher's before you rely on it."
            for kept in self._record(pack).files.values()
            if kept.on_trust
        )
        return PackStatus(pack=pack, state=PackState.READY, warnings=warnings)

    @contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        """One pull at a time in this cache; the lock goes with the process, however that ends."""
        with (self._cache / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("waiting for another pull", 0, None)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(self, pack: ModelPack, progress: Progress) -> None:
        building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=self._cache))
        try:
            finished, fetched = building / "finished", building / "fetched"
            finished.mkdir()
            fetched.mkdir()
            record = _Record(
                format=1,
                pack=pack.id,
                built_at=datetime.now(UTC).replace(microsecond=0),
                files={part.name: self._finish(pack, part, fetched, finished, progress) for part in pack.parts},
            )
            _write(finished / _RECORD, msgspec.json.format(msgspec.json.encode(record)) + b"\n")
            _sync_folder(finished)
            if self._folder(pack).exists():
                self._folder(pack).rename(building / "replaced")
            finished.rename(self._folder(pack))
            _sync_folder(self._cache)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _finish(self, pack: ModelPack, part: Part, fetched: Path, finished: Path, progress: Progress) -> _FileRecord:
        weights = part.weights
        raw = self._fetcher.fetch(weights.source, fetched, progress)
        self._require_same_as_pinned(pack, part, raw)
        target = finished / weights.file
        if weights.converter is None:
            raw.path.replace(target)
        else:
            progress(f"converting {weights.file}", 0, None)
            convert = _converter(weights.converter)
            try:
                _write(target, convert(raw.path.read_bytes()))
            except ValueError as error:
                raise PackCorrupt(f"{weights.file} could not be converted: {error}") from error
        return _FileRecord(
            file=weights.file,
            sha256=_sha256(target) or "",
            bytes=target.stat().st_size,
            source_sha256=raw.sha256,
            recipe=weights.recipe,
            on_trust=raw.on_trust,
        )

    def _require_same_as_pinned(self, pack: ModelPack, part: Part, raw: Fetched) -> None:
        """What was taken on trust once is not taken on trust again."""
        try:
            kept = self._record(pack).files.get(part.name)
        except PackError:
            return
        if kept and kept.on_trust and kept.recipe == part.weights.recipe and kept.source_sha256 != raw.sha256:
            raise PackCorrupt(
                f"{part.weights.file} differs from the one of the first pull: pinned SHA-256 {kept.source_sha256}, "
                f"came {raw.sha256}. If that is right, delete {self._folder(pack)}"
            )


def _pinned(part: Part, kept: _FileRecord | None) -> Part:
    """Fill in the hash that only the pull could tell."""
    weights = part.weights
    if kept is None or weights.source_sha256 is not None or kept.recipe != weights.recipe:
        return part
    match weights.source:
        case UrlSource() as source:
            return replace(part, weights=replace(weights, source=replace(source, sha256=kept.source_sha256)))
        case ArchiveSource() as source:
            return replace(part, weights=replace(weights, source=replace(source, member_sha256=kept.source_sha256)))
        case RegistrySource():
            return part


def _converter(name: str) -> Callable[[bytes], bytes]:
    if name not in CONVERTERS:
        raise PackCorrupt(f"the manifest asks for the converter {name}; there are: {', '.join(CONVERTERS)}")
    module, _, function = CONVERTERS[name].partition(":")
    converter: Callable[[bytes], bytes] = getattr(import_module(module), function)
    return converter


def _sha256(path: Path) -> str | None:
    """SHA-256 in hexadecimal; None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
