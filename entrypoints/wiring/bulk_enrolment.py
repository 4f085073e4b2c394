"""Enrolment of many people by a job."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from dishka import AsyncContainer, Provider, Scope, provide

from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.repositories import JobRepository
from application.use_cases.idempotency import Once
from application.use_cases.references.enrol_bulk import EnrolBulk, EnrolBulkItem
from application.use_cases.references.enrol_references import Enrolled, EnrolReferences
from application.use_cases.references.start_bulk_enrolment import StartBulkEnrolment
from domain.job import Job


class BulkEnrolmentProvider(Provider):
    """What takes the images, and what enrols them."""

    start = provide(StartBulkEnrolment, scope=Scope.REQUEST)

    @provide(scope=Scope.REQUEST)
    def item(self, jobs: JobRepository, blobs: BlobStore, cipher: Cipher, enrol: EnrolReferences) -> EnrolBulkItem:
        """Remember each item's enrolment as that of a call with an idempotency key."""
        return EnrolBulkItem(jobs=jobs, blobs=blobs, cipher=cipher, enrol=enrol, once=_once)

    @provide(scope=Scope.APP)
    def handler(self, container: AsyncContainer) -> EnrolBulk:
        """Give each item a unit of work of its own."""

        @asynccontextmanager
        async def enrolment() -> AsyncIterator[EnrolBulkItem]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(EnrolBulkItem)

        return EnrolBulk(scope=enrolment)


def _once(job: Job, number: int) -> Once[Enrolled]:
    return Once(
        key=f"job-{job.id}#{number}",
        fingerprint=job.id.bytes,
        call=job.id.bytes,
        encode=msgspec.json.encode,
        decode=lambda raw: msgspec.json.decode(raw, type=Enrolled),
    )
