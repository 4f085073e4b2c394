from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.audit import AuditTrail
from application.ports.cipher import WrappedKey
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.job_queue import JobKind, JobQueue, QueuedJob
from application.ports.repositories import JobRepository
from domain.audit import AuditAction, AuditEvent
from domain.errors import PortError
from domain.gallery import GalleryId
from domain.job import TIME_LIMIT, Job, JobId, JobProgress, JobWork
from domain.workspace import WorkspaceId

AT_ONCE = timedelta(0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StartJob:
    """Note long work down in the caller's transaction, and see to it that it is done soon after the commit."""

    jobs: JobRepository
    queue: JobQueue
    audit: AuditTrail
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        kind: JobWork,
        parameters: Mapping[str, object],
        gallery: GalleryId | None = None,
        total: int | None = None,
        time_limit: timedelta = TIME_LIMIT,
        key: WrappedKey | None = None,
        delay: timedelta = AT_ONCE,
    ) -> Job:
        """Return the job as it will be once the caller has committed; then call `after_commit`.

        Args:
            workspace: whose it is.
            kind: what is to be done.
            parameters: ids and numbers, as JSON; never personal data.
            gallery: that it is about, where it is about one.
            total: how much there is to do, where that is known.
            time_limit: of one run.
            key: seals the job's files in the blob store, where it has some.
            delay: not to be run before.
        """
        now = self.clock.now()
        job = Job(
            id=JobId(self.ids.new()),
            workspace=workspace,
            kind=kind,
            parameters=parameters,
            progress=JobProgress(total=total),
            time_limit=time_limit,
            created_at=now,
            due_at=now + delay,
        )
        await self.jobs.add(job, key)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.JOB_STARTED,
                subject=job.id,
                gallery=gallery,
                details={"kind": kind.value},
            )
        )
        return job

    async def after_commit(self, job: Job) -> None:
        """Put it on the queue. Raises nothing of `PortError`: a queue that is down costs the time of a sweep."""
        with suppress(PortError):
            await self.queue.put(QueuedJob(kind=JobKind.JOB, workspace=job.workspace, subject=job.id))
