"""Jobs as they go out."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from domain.job import Job


class JobProgressShape(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is."""

    done: int
    total: int | None
    """Null while nobody knows."""
    stage: str
    """One word for what is being done; empty before it begins."""


class JobErrorShape(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run did not succeed."""

    code: str
    """An error's code as everywhere, or `worker_lost`, `job_timed_out`, `internal_error`, `database_restored`."""
    detail: str
    attempt: int
    """Which try it was, from 1."""
    at: datetime


class JobShape(msgspec.Struct, frozen=True, kw_only=True):
    """Long work in the background."""

    id: UUID
    kind: str
    status: str
    """`queued`, `running`, `succeeded`, `failed` or `cancelled`; the last three are the end of it."""
    parameters: dict[str, Any]
    progress: JobProgressShape
    result: dict[str, Any] | None
    """What came of it; so far, where it has not ended or did not succeed."""
    attempts: int
    """Tries so far."""
    tries: int
    """As many are made before it has failed."""
    errors: list[JobErrorShape]
    """Of the last runs that did not succeed, oldest first."""
    cancel_requested: bool
    created_at: datetime
    due_at: datetime
    """Not run before: later than now while it waits to be tried again."""
    started_at: datetime | None
    finished_at: datetime | None


class JobListShape(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs."""

    items: list[JobShape]
    next_cursor: str | None


def to_job(job: Job) -> JobShape:
    """Render a job."""
    return JobShape(
        id=job.id,
        kind=job.kind,
        status=job.status,
        parameters=dict(job.parameters),
        progress=JobProgressShape(done=job.progress.done, total=job.progress.total, stage=job.progress.stage),
        result=None if job.result is None else dict(job.result),
        attempts=job.attempts,
        tries=job.tries,
        errors=[
            JobErrorShape(code=failure.code, detail=failure.detail, attempt=failure.attempt, at=failure.at)
            for failure in job.failures
        ],
        cancel_requested=job.cancel_requested,
        created_at=job.created_at,
        due_at=job.due_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
