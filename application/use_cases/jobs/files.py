"""Where the files of a job are kept: names that follow from its id alone."""

from application.ports.blob_store import BlobKey, blob_key
from application.ports.cipher import Place
from domain.job import JobId
from domain.workspace import WorkspaceId

JOBS = "jobs"


def job_file(workspace: WorkspaceId, job: JobId, number: int) -> BlobKey:
    """Return the key under which the blob store keeps the `number`th file of a job."""
    return blob_key(JOBS, workspace, job, number)


def job_files(workspace: WorkspaceId, job: JobId) -> str:
    """Return what the keys of all files of a job begin with."""
    return f"{blob_key(JOBS, workspace, job)}/"


def job_file_place(workspace: WorkspaceId, job: JobId, number: int) -> Place:
    """Return the place that the `number`th file of a job is sealed to."""
    return Place(workspace=workspace, subject=job, purpose=f"job-{number}")
