from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, func, insert, literal_column, null, or_, select, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import page, stretch
from adapters.persistence.tables import JOBS
from application.ports.cipher import DataKeyId, WrappedKey
from application.ports.repositories import JobRepository, JobSweep, Page
from domain.errors import JobNotFound
from domain.gallery import GalleryId
from domain.job import GALLERY_PARAMETERS, Job, JobFailure, JobId, JobProgress, JobStatus, JobWork
from domain.workspace import WorkspaceId


@final
class SqlJobRepository(JobRepository):
    """Jobs in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def add(self, job: Job, key: WrappedKey | None = None) -> None:
        await self._connection.execute(
            insert(JOBS).values(
                workspace_id=job.workspace,
                id=job.id,
                kind=job.kind,
                parameters=job.parameters,
                tries=job.tries,
                time_limit_seconds=job.time_limit.total_seconds(),
                created_at=job.created_at,
                data_key_id=None if key is None else key.id,
                wrapped=None if key is None else key.wrapped,
                **_changeable(job),
            )
        )

    async def get(self, workspace: WorkspaceId, job: JobId, *, lock: bool = False) -> Job:
        wanted = select(JOBS).where(_is(workspace, job))
        row = (await self._connection.execute(wanted.with_for_update() if lock else wanted)).one_or_none()
        if row is None:
            raise JobNotFound("no such job")
        return _to_job(row)

    async def page(
        self,
        workspace: WorkspaceId,
        *,
        limit: int,
        after: UUID | None,
        status: JobStatus | None = None,
        kind: JobWork | None = None,
        galleries: frozenset[GalleryId] | None = None,
    ) -> Page[Job]:
        listed = select(JOBS).where(JOBS.c.workspace_id == workspace)
        if status is not None:
            listed = listed.where(JOBS.c.status == status)
        if kind is not None:
            listed = listed.where(JOBS.c.kind == kind)
        if galleries is not None:
            of_gallery = func.coalesce(*(JOBS.c.parameters[name].astext for name in GALLERY_PARAMETERS))
            listed = listed.where(of_gallery.in_([str(one) for one in galleries]))
        found = await self._connection.execute(stretch(listed, JOBS.c.id, limit=limit, after=after))
        return page(found.all(), _to_job, limit=limit)

    async def save(self, job: Job) -> None:
        saved = await self._connection.execute(
            update(JOBS).where(_is(job.workspace, job.id)).values(**_changeable(job))
        )
        if not saved.rowcount:
            raise JobNotFound("no such job")

    async def key_of(self, workspace: WorkspaceId, job: JobId) -> WrappedKey | None:
        found = await self._connection.execute(
            select(JOBS.c.data_key_id, JOBS.c.wrapped).where(_is(workspace, job), JOBS.c.data_key_id.is_not(null()))
        )
        row = found.one_or_none()
        if row is None:
            return None
        return WrappedKey(id=DataKeyId(row.data_key_id), workspace=workspace, wrapped=row.wrapped)


@final
class SqlJobSweep(JobSweep):
    """The sweep of jobs in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def due(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, JobId]]:
        jobs = JOBS.c
        waits = _stands(JobStatus.QUEUED) & (jobs.due_at <= now)
        lost = _stands(JobStatus.RUNNING) & (jobs.held_until <= now)
        return await self._found(or_(waits, lost), by=func.coalesce(jobs.held_until, jobs.due_at), limit=limit)

    async def with_files(self, now: datetime, *, limit: int) -> Sequence[tuple[WorkspaceId, JobId]]:
        ended = JOBS.c.data_key_id.is_not(null()) & JOBS.c.finished_at.is_not(null()) & (JOBS.c.due_at <= now)
        return await self._found(ended, by=JOBS.c.finished_at, limit=limit)

    async def without_files(self, workspace: WorkspaceId, job: JobId) -> None:
        await self._connection.execute(update(JOBS).where(_is(workspace, job)).values(data_key_id=None, wrapped=None))

    async def purge(self, ended_before: datetime) -> int:
        gone = delete(JOBS).where(JOBS.c.finished_at < ended_before, JOBS.c.data_key_id.is_(null()))
        return (await self._connection.execute(gone)).rowcount

    async def _found(
        self, where: ColumnElement[bool], *, by: ColumnElement[Any], limit: int
    ) -> Sequence[tuple[WorkspaceId, JobId]]:
        found = await self._connection.execute(
            select(JOBS.c.workspace_id, JOBS.c.id).where(where).order_by(by, JOBS.c.id).limit(limit)
        )
        return [(WorkspaceId(row.workspace_id), JobId(row.id)) for row in found]


def _is(workspace: WorkspaceId, job: JobId) -> ColumnElement[bool]:
    return (JOBS.c.workspace_id == workspace) & (JOBS.c.id == job)


def _stands(status: JobStatus) -> ColumnElement[bool]:
    # Not a parameter: the indexes on some of the rows alone are of use only where a plan can rely on the value.
    return JOBS.c.status == literal_column(f"'{status.value}'")


def _changeable(job: Job) -> dict[str, object]:
    return {
        "status": job.status,
        "done": job.progress.done,
        "total": job.progress.total,
        "stage": job.progress.stage,
        "result": job.result,
        "attempts": job.attempts,
        "losses": job.losses,
        "failures": [
            {"code": one.code, "detail": one.detail, "attempt": one.attempt, "at": one.at.isoformat()}
            for one in job.failures
        ],
        "run": job.run,
        "held_until": job.held_until,
        "cancel_requested": job.cancel_requested,
        "due_at": job.due_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def _to_job(row: Row[Any]) -> Job:
    return Job(
        id=JobId(row.id),
        workspace=WorkspaceId(row.workspace_id),
        kind=JobWork(row.kind),
        status=JobStatus(row.status),
        parameters=row.parameters,
        progress=JobProgress(done=row.done, total=row.total, stage=row.stage),
        result=row.result,
        attempts=row.attempts,
        tries=row.tries,
        losses=row.losses,
        failures=tuple(
            JobFailure(
                code=one["code"], detail=one["detail"], attempt=one["attempt"], at=datetime.fromisoformat(one["at"])
            )
            for one in row.failures
        ),
        run=row.run,
        held_until=row.held_until,
        cancel_requested=row.cancel_requested,
        time_limit=timedelta(seconds=row.time_limit_seconds),
        created_at=row.created_at,
        due_at=row.due_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
