"""The port to work that is done later."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from domain.workspace import WorkspaceId


class JobKind(StrEnum):
    """What can be asked for; each kind has one handler."""

    RECONCILE = "reconcile"
    """Bring one reference's index entry in line with the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A note that says what to look at: never the data itself, which is read from the record when it runs."""

    kind: JobKind
    workspace: WorkspaceId
    subject: UUID


class JobQueue(Protocol):
    """Carries jobs from who notes them down to who does them.

    The record holds what must be done; the queue only makes it soon. A queue that loses everything
    loses nothing: a sweep puts waiting work back. So jobs come at least once and handlers are idempotent.
    """

    @abstractmethod
    async def put(self, job: QueuedJob, *, delay: float = 0.0) -> None:
        """Ask for `job` after `delay` seconds at the earliest. The same job waiting twice may run once.

        Raises `PortBusy` where the queue is full and `PortUnavailable`.
        """

    @abstractmethod
    async def run(self, handle: Callable[[QueuedJob], Awaitable[None]]) -> None:
        """Do jobs until cancelled; on the way out running ones are given back, not half counted.

        An exception of `handle` repeats the job with exponential backoff and jitter, three times by
        default; then it is dropped here, and the record still knows it.
        """

    @abstractmethod
    async def waiting(self) -> int:
        """Return how many jobs wait or run."""
