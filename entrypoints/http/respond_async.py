"""Calls that may be answered by a job: `Prefer: respond-async` (RFC 7240)."""

from typing import Any

from litestar import Request, Response

from domain.job import Job
from entrypoints.http.job_shapes import JobShape, to_job

_PREFERENCE = "respond-async"


def wants_job(request: Request[Any, Any, Any]) -> bool:
    """Tell whether the client would rather have a job than wait."""
    preferences = ",".join(request.headers.getall("prefer", [])).split(",")
    return any(one.partition(";")[0].strip().lower() == _PREFERENCE for one in preferences)


def accepted(job: Job) -> Response[JobShape]:
    """Answer 202 with the job, and where to look for it."""
    return Response(
        to_job(job),
        status_code=202,
        headers={"Location": f"/api/v1/jobs/{job.id}", "Preference-Applied": _PREFERENCE},
    )
