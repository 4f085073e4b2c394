from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.repositories import JobRepository, Page
from domain.gallery import GalleryId
from domain.job import Job, JobStatus, JobWork
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListJobs:
    """List the workspace's jobs, oldest first, of one status or kind where that is asked for.

    Jobs that have ended are kept for 30 days.
    """

    jobs: JobRepository

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        limit: int,
        after: UUID | None,
        status: JobStatus | None = None,
        kind: JobWork | None = None,
        galleries: frozenset[GalleryId] | None = None,
    ) -> Page[Job]:
        return await self.jobs.page(workspace, limit=limit, after=after, status=status, kind=kind, galleries=galleries)
