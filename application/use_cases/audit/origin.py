"""For whom work is done: set where it comes in, read where it is written down."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from domain.audit import ActorKind, Origin

SYSTEM = Origin(kind=ActorKind.SYSTEM)
CLI = Origin(kind=ActorKind.CLI)

_ORIGIN: ContextVar[Origin] = ContextVar("origin", default=SYSTEM)


def current_origin() -> Origin:
    """Return for whom this piece of work is done; the service itself where nobody said."""
    return _ORIGIN.get()


def set_origin(origin: Origin) -> None:
    """Say it for the rest of this task, and for those that it begins."""
    _ORIGIN.set(origin)


@contextmanager
def done_for(origin: Origin) -> Iterator[None]:
    """Say it for a block."""
    token = _ORIGIN.set(origin)
    try:
        yield
    finally:
        _ORIGIN.reset(token)
