"""Which adapters there are for each port: the built-in ones, and those that installed packages bring."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from entrypoints.settings import PREFIX, Settings
from entrypoints.wiring.start_error import StartError


class Port(StrEnum):
    """What can be swapped; the value is its settings' name and, behind `facepass.`, its group of entry points."""

    FACE_EMBEDDER = "face_embedder"
    LIVENESS_CHECKER = "liveness_checker"
    VECTOR_INDEX = "vector_index"
    BLOB_STORE = "blob_store"
    JOB_QUEUE = "job_queue"
    MASTER_KEY = "master_key"

    @property
    def group(self) -> str:
        """The group of entry points."""
        return f"facepass.{self.value}"

    @property
    def setting(self) -> str:
        """The setting that chooses one."""
        between = "_" if self is Port.MASTER_KEY else "__"
        return f"{PREFIX}{self.value.upper()}{between}BACKEND"


BUILT_IN: Final[Mapping[Port, Mapping[str, str | None]]] = {
    Port.FACE_EMBEDDER: {"onnx": None, "insightface": "insightface"},
    Port.LIVENESS_CHECKER: {},
    Port.VECTOR_INDEX: {"pgvector": None, "qdrant": "qdrant"},
    Port.BLOB_STORE: {"filesystem": None, "s3": "s3"},
    Port.JOB_QUEUE: {"in_process": None, "arq": "redis"},
    Port.MASTER_KEY: {"file": None, "environment": None},
}
"""Names, each with the extra that its packages come with; None: they are always there."""

BUILDER: Final = "facepass"
"""Who owns the built-in ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One that is installed."""

    port: Port
    name: str
    owner: str
    """The distribution that it comes with, with its version where that is a third party's."""
    chosen: bool


def installed(settings: Settings) -> Sequence[Adapter]:
    """List all of them, loading none. Two owners of a name are both among them."""
    found = []
    for port in Port:
        owned = [(name, BUILDER) for name in BUILT_IN[port]]
        owned += [(point.name, _owner(point)) for point in sorted(_points(port))]
        found += [
            Adapter(port=port, name=name, owner=owner, chosen=name in chosen(settings, port)) for name, owner in owned
        ]
    return found


def chosen(settings: Settings, port: Port) -> frozenset[str]:
    """Return what the settings name for a port: one, and a second one where the installation is moving."""
    if port is Port.MASTER_KEY:
        return frozenset({settings.master_key_kind})
    places = (port.value, f"next_{port.value}")
    return frozenset(getattr(settings, place).backend for place in places if hasattr(settings, place)) - {""}


def third_party(port: Port, name: str, *, setting: str | None = None) -> Any:  # noqa: ANN401 - each port has its own
    """Load the factory of a third party's adapter.

    Raises `StartError` where there is none of this name, several packages bring one, or it cannot be loaded.
    """
    setting = setting or port.setting
    points = [point for point in _points(port) if point.name == name]
    if not points:
        there = sorted({*BUILT_IN[port], *(point.name for point in _points(port))})
        raise StartError(f"{setting}: there is no {_words(port)} {name!r}; there is {', '.join(there) or 'none'}")
    require_one_owner(port, name, setting=setting)
    try:
        return points[0].load()
    except Exception as error:
        raise StartError(
            f"{setting}: the {_words(port)} {name!r} of {_owner(points[0])} cannot be loaded:"
            f" {type(error).__name__}: {error}"
        ) from error


def require_one_owner(port: Port, name: str, *, setting: str | None = None) -> None:
    """Raise `StartError` where two packages, or a package and this one, claim the same name."""
    owners = [BUILDER] if name in BUILT_IN[port] else []
    owners += sorted(_owner(point) for point in _points(port) if point.name == name)
    if len(owners) > 1:
        raise StartError(
            f"{setting or port.setting}: the name {name!r} is claimed by {' and '.join(owners)}; uninstall one of them"
        )


@contextmanager
def extra_of(port: Port, name: str, *, setting: str | None = None) -> Iterator[None]:
    """Import a built-in adapter inside the block; what is missing is said as the extra that brings it."""
    require_one_owner(port, name, setting=setting)
    try:
        yield
    except ImportError as error:
        extra = BUILT_IN[port][name]
        if extra is None:
            raise
        raise StartError(
            f"{setting or port.setting}: {name} needs packages that are not installed ({error.name}):"
            f" pip install 'facepass[{extra}]'"
        ) from error


def _points(port: Port) -> Sequence[EntryPoint]:
    return tuple(entry_points(group=port.group))


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _words(port: Port) -> str:
    return port.value.replace("_", " ")
