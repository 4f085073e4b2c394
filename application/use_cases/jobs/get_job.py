from dataclasses import dataclass
from typing import final

from application.ports.repositories import JobRepository
from domain.gallery import GalleryId
from domain.job import Job, JobId, require_among
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetJob:
    """Show a job: where it stands, how far it is, what came of it, and why runs of it failed."""

    jobs: JobRepository

    async def __call__(
        self, *, workspace: WorkspaceId, job: JobId, galleries: frozenset[GalleryId] | None = None
    ) -> Job:
        return require_among(await self.jobs.get(workspace, job), galleries)
