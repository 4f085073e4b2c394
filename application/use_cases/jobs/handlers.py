"""What does the work of a job."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import NewType, Protocol

from domain.job import Job, JobWork


class JobStopped(Exception):
    """The job was cancelled, or is another's by now: the handler is to end. Let it through.

    No `FacepassError`, so that code which takes an item's error for that item's alone cannot swallow it.
    """


class ReportProgress(Protocol):
    """Tells how far a job is; call it as often as there is news, it is written about once a second."""

    @abstractmethod
    async def __call__(
        self, done: int, total: int | None = None, stage: str = "", *, result: Mapping[str, object] | None = None
    ) -> None:
        """Say that `done` of `total` is done; `stage` is one word. Raises `JobStopped`.

        With `result`, what came of it so far, it is written at once: whoever runs the job again finds it in
        `job.result`, and need not do it again. Then it raises `PortUnavailable` and `PortBusy` too.
        """


class JobHandler(Protocol):
    """Does one kind of job.

    Idempotent and resumable: it may be killed at any moment and run again, and for a moment beside itself. It says
    how far it is at least every few seconds, since that is when a job can be cancelled. `asyncio.CancelledError`
    ends it too: the process is going, the time is up, or the lease was lost.
    """

    @abstractmethod
    async def __call__(self, job: Job, progress: ReportProgress) -> Mapping[str, object]:
        """Do it, and return what came of it as JSON: ids, numbers and codes, never personal data.

        An error that repeating can help (`PortUnavailable`, `PortBusy`, whatever is no `FacepassError`) is tried
        again; every other one fails the job.
        """


JobHandlers = NewType("JobHandlers", Mapping[JobWork, JobHandler])
"""Who does what; jobs of another kind are left to other processes."""
