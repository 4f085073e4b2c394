from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import cast, final
from uuid import UUID

from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.repositories import JobRepository
from application.use_cases.idempotency import Once
from application.use_cases.jobs.files import job_file, job_file_place
from application.use_cases.jobs.handlers import JobHandler, ReportProgress
from application.use_cases.references.bulk_items import unpacked
from application.use_cases.references.enrol_references import Enrolled, EnrolReferences
from domain.enrolment import Rejection
from domain.errors import CannotOpen, FacepassError, ImageNotKept, NothingAccepted, PortError
from domain.gallery import GalleryId
from domain.job import Job

STAGE = "enrolling"

OnceForItem = Callable[[Job, int], Once[Enrolled]]
"""Makes the enrolment of a job's item one that is done once."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolBulkItem:
    """Enrol one person of a job, once: a second run is answered with what the first one did."""

    jobs: JobRepository
    blobs: BlobStore
    cipher: Cipher
    enrol: EnrolReferences
    once: OnceForItem

    async def __call__(self, *, job: Job, number: int) -> Enrolled:
        """Raises `ImageNotKept` where its file is not there, and what `EnrolReferences` raises."""
        key = await self.jobs.key_of(job.workspace, job.id)
        sealed = await self.blobs.get(job_file(job.workspace, job.id, number))
        if key is None or sealed is None:
            raise ImageNotKept("the images did not all arrive: the call that brought them was cut off, send it again")
        item = unpacked(self.cipher.open(sealed, key=key, place=job_file_place(job.workspace, job.id, number)))
        return await self.enrol(
            workspace=job.workspace,
            gallery=GalleryId(UUID(str(job.parameters["gallery"]))),
            images=item.images,
            person=item.person,
            external_id=item.external_id,
            metadata=item.metadata,
            retention=item.retention,
            once=self.once(job, number),
            asked_at=job.created_at,
        )

    async def done(self, *, job: Job, number: int) -> None:
        """Remove the file of an item that no run asks for again; where that fails, it goes when the job has ended."""
        with suppress(PortError):
            await self.blobs.remove(job_file(job.workspace, job.id, number))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolBulk(JobHandler):
    """Enrol the people of a job one after the other; each has a result or a problem, and one's is no other's.

    What was done is written down person by person, and their images go then: a run that goes on where another ended
    makes nobody twice, and does not bring back whom somebody has deleted in between. Nor does it enrol anybody whose
    `external_id` was somebody's who was erased since the job was started.
    """

    scope: Callable[[], AbstractAsyncContextManager[EnrolBulkItem]]

    async def __call__(self, job: Job, progress: ReportProgress) -> Mapping[str, object]:
        """Return `items`: ids of the person and the references, or the code and detail of the problem."""
        total = cast("int", job.parameters["items"])
        done = [*cast("list[object]", (job.result or {}).get("items", []))]
        await progress(len(done), total, STAGE)
        for number in range(len(done), total):
            done.append({"index": number, **await self._enrolled(job, number)})
            await progress(len(done), total, STAGE, result={"items": done})
            async with self.scope() as enrol:
                await enrol.done(job=job, number=number)
        return {"items": done}

    async def _enrolled(self, job: Job, number: int) -> Mapping[str, object]:
        try:
            async with self.scope() as enrol:
                return _to_result(await enrol(job=job, number=number))
        except (PortError, ImageNotKept, CannotOpen):
            raise  # about the service or the job, not about this person
        except FacepassError as error:
            return {"problem": _to_problem(error)}


def _to_result(enrolled: Enrolled) -> Mapping[str, object]:
    return {
        "person_id": str(enrolled.person.id),
        "accepted": [{"id": str(reference.id), "searchable": reference.searchable} for reference in enrolled.accepted],
        "rejected": [_to_rejected(one) for one in enrolled.rejected],
    }


def _to_problem(error: FacepassError) -> Mapping[str, object]:
    problem: dict[str, object] = {"code": error.code, "detail": error.message}
    if isinstance(error, NothingAccepted):
        problem["rejected"] = [_to_rejected(one) for one in error.rejected if isinstance(one, Rejection)]
    return problem


def _to_rejected(rejection: Rejection) -> Mapping[str, object]:
    return {"index": rejection.index, "code": rejection.code, "detail": rejection.detail}
