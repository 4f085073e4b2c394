from dataclasses import dataclass
from typing import final

from application.ports.repositories import JobRepository
from domain.job import Job, JobId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GetJob:
    """Show a job: where it stands, how far it is, what came of it, and why runs of it failed."""

    jobs: JobRepository

    async def __call__(self, *, workspace: WorkspaceId, job: JobId) -> Job:
        return await self.jobs.get(workspace, job)
