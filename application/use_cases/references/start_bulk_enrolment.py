import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from application.ports.audit import AuditTrail
from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher, DataKeyId, WrappedKey
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.record import Record
from application.ports.repositories import JobRepository
from application.ports.transaction import Transaction
from application.use_cases.batch import checked_batch
from application.use_cases.idempotency import Once, RememberedAnswers
from application.use_cases.jobs.files import job_file, job_file_place
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.references.bulk_items import packed
from application.use_cases.references.enrol_batch import EnrolmentItem
from domain.audit import AuditAction, AuditEvent
from domain.errors import JobNotFound, PortError
from domain.gallery import GalleryId
from domain.job import Job, JobWork
from domain.workspace import WorkspaceId

FILES_WITHIN = timedelta(hours=1)
"""The job is noted before its files are put; one whose call was cut off is run, and fails, after this time.

One that is cancelled while they come is not cleared up behind before they are there, or this time is over.
"""

TIME_LIMIT = timedelta(hours=2)
"""A hundred people with a hundred photographs each, at two a second."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StartBulkEnrolment:
    """Take up to 100 people with their images, to be enrolled by a job.

    The images lie in the blob store until the job is done with their item, or has ended, sealed under a key that goes
    with them. Either the whole of it was taken when this returns, or nobody will be enrolled.
    """

    record: Record
    jobs: JobRepository
    start: StartJob
    remembered: RememberedAnswers
    audit: AuditTrail
    transaction: Transaction
    blobs: BlobStore
    cipher: Cipher
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        items: Sequence[EnrolmentItem],
        once: Once[Job] | None = None,
    ) -> Job:
        checked_batch(items)
        earlier = await self.remembered.earlier(workspace, once)
        if earlier is not None:
            return await self._as_it_is_now(earlier)
        place = await self.record.gallery(workspace, gallery)
        key = self.cipher.new_key(DataKeyId(self.ids.new()), workspace=workspace)
        job = await self.start(
            workspace=workspace,
            kind=JobWork.BULK_ENROLMENT,
            parameters={"gallery": str(place.id), "items": len(items)},
            gallery=place.id,
            total=len(items),
            time_limit=TIME_LIMIT,
            key=key,
            delay=FILES_WITHIN,
        )
        await self.transaction.commit()
        try:
            await self._put(job, items, key)
            released = await self._release(job, once)
        except PortError:
            await self._cancel(job)
            raise
        if released is None:
            await self._cancel(job)
            return await self._as_it_is_now(await self.remembered.committed(workspace, once))
        if not released.ended:
            await self.start.after_commit(released)
        return released

    async def _put(self, job: Job, items: Sequence[EnrolmentItem], key: WrappedKey) -> None:
        # The first one last: where that is there, all of them are.
        for number in reversed(range(len(items))):
            sealed = await asyncio.to_thread(
                self.cipher.seal, packed(items[number]), key=key, place=job_file_place(job.workspace, job.id, number)
            )
            await self.blobs.put(job_file(job.workspace, job.id, number), sealed)

    async def _release(self, job: Job, once: Once[Job] | None) -> Job | None:
        """Let it be run, or cleared up behind where somebody has cancelled it.

        None where the same call was made and committed meanwhile.
        """
        released = (await self.jobs.get(job.workspace, job.id, lock=True)).released(self.clock.now())
        await self.jobs.save(released)
        if not await self.remembered.keep(job.workspace, once, released):
            await self.transaction.rollback()
            return None
        await self.transaction.commit()
        return released

    async def _cancel(self, job: Job) -> None:
        """Let the sweep clear up at once, and not in an hour."""
        with suppress(PortError, JobNotFound):
            await self.transaction.rollback()
            now = self.clock.now()
            found = await self.jobs.get(job.workspace, job.id, lock=True)
            ended = found if found.ended else found.cancelled(now)
            await self.jobs.save(ended.released(now))
            if not found.ended:
                self.audit.note(
                    AuditEvent(
                        workspace=job.workspace,
                        action=AuditAction.JOB_CANCELLED,
                        subject=job.id,
                        details={"kind": job.kind.value},
                    )
                )
            await self.transaction.commit()

    async def _as_it_is_now(self, job: Job) -> Job:
        with suppress(JobNotFound):
            return await self.jobs.get(job.workspace, job.id)
        return job
