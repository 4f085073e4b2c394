"""The port to work that is done later."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable
from uuid import UUID

from domain.workspace import WorkspaceId


class JobKind(StrEnum):
    """What can be asked for; each kind has one handler."""

    RECONCILE = "reconcile"
    """Bring one reference's index entry in line with the record; the subject is the reference's id."""
    JOB = "job"
    """Do one job of the record; the subject is the job's id, and its row says what is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A note that says what to look at: never the data itself, which is read from the record when it runs."""

    kind: JobKind
    workspace: WorkspaceId
    subject: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Regular:
    """Work that comes round by itself: sweeps, upkeep."""

    name: str
    """Unique among them, for the log and the queue's own books."""
    every: float
    """Seconds from one beginning to the next, at least 1; longer where the work itself takes longer."""
    work: Callable[[], Awaitable[None]]
    """Raises nothing that matters: whatever comes out of it is logged, and it comes round again."""


class JobQueue(Protocol):
    """Carries jobs from who notes them down to who does them.

    The record holds what must be done; the queue only makes it soon. A queue that loses everything
    loses nothing: a sweep puts waiting work back. So jobs come at least once and handlers are idempotent.

    When it is down, `put` raises `PortUnavailable`; whoever asked has noted the work in the record before and
    goes on. `run` does not end: it waits for the queue to come back.
    """

    @abstractmethod
    async def put(self, job: QueuedJob, *, delay: float = 0.0) -> None:
        """Ask for `job` after `delay` seconds at the earliest. The same job waiting twice may run once.

        Asked for again with less delay it comes sooner; asked for while it runs, it runs once more afterwards.
        Raises `PortBusy` where the queue is full and `PortUnavailable`.
        """

    @abstractmethod
    async def run(self, handle: Callable[[QueuedJob], Awaitable[None]], *, regular: Sequence[Regular] = ()) -> None:
        """Do jobs and regular work until cancelled; on the way out running ones are given back, not half counted.

        An exception of `handle` repeats the job with exponential backoff and jitter, three tries in all by
        default; then it is dropped here, and the record still knows it. Of all who run the same queue one at a
        time does a piece of regular work.
        """

    @abstractmethod
    async def waiting(self) -> int:
        """Return how many jobs wait or run. Raises `PortUnavailable`."""


@runtime_checkable
class SignsOfLife(Protocol):
    """Registered by queues whose workers can be asked about from outside, for health checks."""

    @abstractmethod
    async def last_seen(self) -> float | None:
        """Return how many seconds ago a worker of this host gave a sign of life, None where it should have since.

        Raises `PortUnavailable`.
        """


class JobQueueFactory(Protocol):
    """What an entry point of the group `facepass.job_queue` names."""

    @abstractmethod
    def __call__(self, *, options: Mapping[str, str]) -> AbstractAsyncContextManager[JobQueue]:
        """Open a queue for a block; `options` are the settings `FACEPASS_JOB_QUEUE__OPTIONS__*` in lower case."""
