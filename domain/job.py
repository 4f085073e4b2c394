"""Long work that somebody asked for: what is kept of it, and what can become of it.

    queued ──▶ running ──▶ succeeded | failed | cancelled
      │  ◀────────┘ given back, or to be tried again
      └──▶ cancelled

Whoever runs a job holds it under a lease and renews that. A lease that ran out can be taken over: each holder has
a number of its own (`Job.run`), and what an earlier one still wants to write is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

from domain.errors import JobEnded, JobNotFound
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId

JobId = NewType("JobId", UUID)

TRIES = 3
"""Runs of a job that keeps failing, the first one included."""

LOSSES = 10
"""Runs that may end with the death of their worker. More than tries: killing a worker is an operator's good right, but
a job that itself brings every worker down must end too."""

TIME_LIMIT = timedelta(hours=12)
"""Of one run. A million references at 30 a second take nine hours."""

FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=5)
"""Between two tries: long enough for a backend to be started again."""

FAILURES_KEPT = 10

GALLERY_PARAMETERS = ("gallery_id", "gallery")
"""Where a job's parameters say which gallery it is about, if it is about one."""

WORKER_LOST = "worker_lost"
TIMED_OUT = "job_timed_out"
INTERNAL_ERROR = "internal_error"
DATABASE_RESTORED = "database_restored"
"""Codes of failures that are no error of the core."""


class JobWork(StrEnum):
    """What a job does; each has one handler."""

    GALLERY_MIGRATION = "gallery_migration"
    INDEX_MIGRATION = "index_migration"
    BULK_ENROLMENT = "bulk_enrolment"


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a job is."""

    done: int = 0
    total: int | None = None
    """None while nobody knows."""
    stage: str = ""
    """One word for what is being done (`copying`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why a run did not succeed."""

    code: str
    """That of the error, or `worker_lost`, `job_timed_out`, `internal_error`, `database_restored`."""
    detail: str
    attempt: int
    """Which try it was, from 1."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job of the record. Every change of it is one of the methods below, made while its row is locked."""

    id: JobId
    workspace: WorkspaceId
    kind: JobWork
    status: JobStatus = JobStatus.QUEUED
    parameters: Mapping[str, object]
    """Ids and numbers, as JSON; never personal data."""
    progress: JobProgress = JobProgress()
    result: Mapping[str, object] | None = None
    """What came of it, so far where it has not ended, as JSON: ids, numbers and codes; never personal data."""
    attempts: int = 0
    """Tries that failed or succeeded; runs that were given back or lost are none."""
    tries: int = TRIES
    losses: int = 0
    """Runs whose worker went away without a word."""
    failures: tuple[JobFailure, ...] = ()
    """The last ones, oldest first."""
    run: int = 0
    """Counts those who held it: the number of the present or last one."""
    held_until: datetime | None = None
    """When the lease of the present holder runs out; None where nobody has it."""
    cancel_requested: bool = False
    time_limit: timedelta = TIME_LIMIT
    """Of one run."""
    created_at: datetime
    due_at: datetime
    """Not to be run before; nor cleared up behind, since files may be coming until then."""
    started_at: datetime | None = None
    """When it was run first."""
    finished_at: datetime | None = None

    @property
    def gallery(self) -> GalleryId | None:
        """The one that it is about; None for a job that is about all of them."""
        named = next((self.parameters[name] for name in GALLERY_PARAMETERS if name in self.parameters), None)
        return None if named is None else GalleryId(UUID(str(named)))

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED

    def cancelled(self, now: datetime) -> "Job":
        """Cancel it: one that waits at once, one that runs when it next says how far it is. Raises `JobEnded`."""
        if self.ended:
            raise JobEnded(f"the job has ended: it {_ENDED_AS[self.status]}")
        if self.status is JobStatus.RUNNING:
            return replace(self, cancel_requested=True)
        return replace(self, status=JobStatus.CANCELLED, cancel_requested=True, finished_at=now)

    def abandoned(self, now: datetime, *, code: str, detail: str) -> "Job":
        """End it as failed, whoever holds it: it can never be done. Raises `JobEnded`."""
        if self.ended:
            raise JobEnded(f"the job has ended: it {_ENDED_AS[self.status]}")
        return _ended_as(_noted(self, code, detail, now), JobStatus.FAILED, now)

    def released(self, now: datetime) -> "Job":
        """Let one that waits for its time be run now, or, where it has ended, what it left be cleared up."""
        return self if self.status is JobStatus.RUNNING else replace(self, due_at=min(self.due_at, now))

    def claimed(self, now: datetime, *, lease: timedelta) -> "Job | None":
        """Give it to a new holder; None where it is not due, has ended, or is another's.

        One whose worker was lost may end instead: where it was to be cancelled, or this happened `LOSSES` times.
        """
        if self.status is JobStatus.QUEUED and self.due_at <= now:
            return _run_from(self, now, lease)
        if self.status is JobStatus.RUNNING and self.held_until is not None and self.held_until <= now:
            return _run_from(_lost(self, now), now, lease)
        return None

    def renewed(
        self, run: int, *, held_until: datetime, progress: JobProgress, result: Mapping[str, object] | None = None
    ) -> "Job | None":
        """Keep it for its holder, who is so far, with what came of it until now; None where it is another's."""
        if not self._is_of(run):
            return None
        return replace(self, held_until=held_until, progress=progress, result=result or self.result)

    def succeeded(self, run: int, now: datetime, *, result: Mapping[str, object]) -> "Job | None":
        """End it well; None where its holder has it no more."""
        if not self._is_of(run):
            return None
        return replace(_ended_as(self, JobStatus.SUCCEEDED, now), attempts=self.attempts + 1, result=result)

    def failed(self, run: int, now: datetime, *, code: str, detail: str, wait: timedelta | None = None) -> "Job | None":
        """Note a try that failed; None where its holder has the job no more.

        It is tried again after `wait`, unless that is None or the tries are used up: then it ends as failed.
        """
        if not self._is_of(run):
            return None
        noted = replace(_noted(self, code, detail, now), attempts=self.attempts + 1)
        if self.cancel_requested:
            return _ended_as(noted, JobStatus.CANCELLED, now)
        if wait is None or noted.attempts >= self.tries:
            return _ended_as(noted, JobStatus.FAILED, now)
        return replace(noted, status=JobStatus.QUEUED, held_until=None, due_at=now + wait)

    def stopped(self, run: int, now: datetime) -> "Job | None":
        """End it as cancelled, since its holder has seen that it was asked to; None where it has it no more."""
        return _ended_as(self, JobStatus.CANCELLED, now) if self._is_of(run) else None

    def given_back(self, run: int, now: datetime) -> "Job | None":
        """Let somebody else run it at once, since its holder is going; None where it has it no more."""
        if not self._is_of(run):
            return None
        if self.cancel_requested:
            return _ended_as(self, JobStatus.CANCELLED, now)
        return replace(self, status=JobStatus.QUEUED, held_until=None, due_at=now)

    def _is_of(self, run: int) -> bool:
        return self.status is JobStatus.RUNNING and self.run == run


def wait_before_retry(failures: int, *, chance: float, first: timedelta = FIRST_WAIT) -> timedelta:
    """Return how long to wait after so many failures, of which the last has just been.

    Exponential with *full jitter*: a random share `chance`, 0..1, of `first * 2^(failures - 1)`, at most
    `LONGEST_WAIT` (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    doublings = min(max(failures, 1) - 1, _DOUBLINGS)
    return min(first * (1 << doublings), LONGEST_WAIT) * chance


_DOUBLINGS = 16
"""More would only make the number large: the longest wait is reached long before."""

_ENDED_AS = {
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "was cancelled",
}


def _run_from(job: Job, now: datetime, lease: timedelta) -> Job:
    if job.ended:
        return job
    return replace(
        job,
        status=JobStatus.RUNNING,
        run=job.run + 1,
        held_until=now + lease,
        started_at=job.started_at or now,
    )


def _lost(job: Job, now: datetime) -> Job:
    lost = replace(_noted(job, WORKER_LOST, "its worker went away", now), losses=job.losses + 1)
    if job.cancel_requested:
        return _ended_as(lost, JobStatus.CANCELLED, now)
    return _ended_as(lost, JobStatus.FAILED, now) if lost.losses >= LOSSES else lost


def require_among(job: Job, galleries: frozenset[GalleryId] | None) -> Job:
    """Return the job. Raises `JobNotFound` where it is not about one of these galleries; None: whichever."""
    if galleries is not None and job.gallery not in galleries:
        raise JobNotFound("no such job")
    return job


def _noted(job: Job, code: str, detail: str, now: datetime) -> Job:
    failure = JobFailure(code=code, detail=detail, attempt=job.attempts + 1, at=now)
    return replace(job, failures=(*job.failures, failure)[-FAILURES_KEPT:])


def _ended_as(job: Job, status: JobStatus, now: datetime) -> Job:
    return replace(job, status=status, held_until=None, finished_at=now)
