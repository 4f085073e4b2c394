"""/jobs."""

from collections.abc import AsyncIterator
from enum import StrEnum
from inspect import getdoc
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, get, post
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from application.use_cases.jobs.cancel_job import CancelJob
from application.use_cases.jobs.get_job import GetJob
from application.use_cases.jobs.list_jobs import ListJobs
from application.use_cases.jobs.watch_job import WatchJob
from domain.errors import InvalidValue
from domain.job import Job, JobId, JobStatus, JobWork
from domain.permission import Permission
from entrypoints.http.access import principal_of, require_still, workspace_of
from entrypoints.http.cursors import Cursors
from entrypoints.http.job_shapes import JobListShape, JobShape, to_job
from entrypoints.http.names import page_size

E = TypeVar("E", bound=StrEnum)

JOB = "/jobs/{job:uuid}"


@get("/jobs", needs=Permission.READ, description=getdoc(ListJobs), summary="List jobs")
@inject
async def list_jobs(
    request: Request[Any, Any, Any],
    listed: FromDishka[ListJobs],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
    status: FromQuery[str | None] = None,
    kind: FromQuery[str | None] = None,
) -> JobListShape:
    """List jobs."""
    workspace = workspace_of(request)
    galleries = principal_of(request).galleries
    filters = ("jobs", workspace, status, kind)
    page = await listed(
        workspace=workspace,
        limit=page_size(limit),
        after=cursors.read(cursor, *filters),
        status=None if status is None else _one_of(JobStatus, status, field="status"),
        kind=None if kind is None else _one_of(JobWork, kind, field="kind"),
        galleries=galleries,
    )
    return JobListShape(
        items=[to_job(job) for job in page.items], next_cursor=cursors.written(page.next_after, *filters)
    )


@get(JOB, needs=Permission.READ, description=getdoc(GetJob), summary="Show a job")
@inject
async def get_job(request: Request[Any, Any, Any], job: FromPath[UUID], show: FromDishka[GetJob]) -> JobShape:
    """Show a job."""
    return to_job(
        await show(workspace=workspace_of(request), job=JobId(job), galleries=principal_of(request).galleries)
    )


@post(JOB + "/cancel", needs=Permission.MANAGE, status_code=200, description=getdoc(CancelJob), summary="Cancel a job")
@inject
async def cancel_job(request: Request[Any, Any, Any], job: FromPath[UUID], cancel: FromDishka[CancelJob]) -> JobShape:
    """Cancel a job."""
    return to_job(
        await cancel(workspace=workspace_of(request), job=JobId(job), galleries=principal_of(request).galleries)
    )


@get(
    JOB + "/events",
    needs=Permission.READ,
    media_type="text/event-stream",
    description=getdoc(WatchJob),
    summary="Watch a job, as server-sent events",
)
@inject
async def watch_job(request: Request[Any, Any, Any], job: FromPath[UUID], watch: FromDishka[WatchJob]) -> Stream:
    """Watch a job."""
    states = watch(
        workspace=workspace_of(request),
        job=JobId(job),
        galleries=principal_of(request).galleries,
        require_allowed=lambda: require_still(request),
    )
    first = await anext(states)  # before the answer begins: an id that nobody has is a 404
    return Stream(
        _events(first, states),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(first: Job | None, states: AsyncIterator[Job | None]) -> AsyncIterator[bytes]:
    yield _event(first)
    async for state in states:
        yield _event(state)


def _event(state: Job | None) -> bytes:
    """Write one event (HTML Living Standard, 9.2); what begins with a colon is a comment, which keeps the line open."""
    return (
        b": still here\n\n" if state is None else b"event: job\ndata: " + msgspec.json.encode(to_job(state)) + b"\n\n"
    )


def _one_of(kind: type[E], value: str, *, field: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        raise InvalidValue(f"{field} is one of {', '.join(kind)}", field=field) from error
