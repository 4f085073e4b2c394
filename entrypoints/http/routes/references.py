"""/galleries/{gallery}/references."""

from dataclasses import replace
from inspect import getdoc
from typing import Any
from uuid import UUID

from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, Response, delete, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery

from application.ports.keyed_hash import KeyedHash
from application.use_cases.references.delete_reference import DeleteReference
from application.use_cases.references.enrol_batch import EnrolBatch, EnrolmentItem
from application.use_cases.references.enrol_references import Enrolled, EnrolReferences
from application.use_cases.references.get_reference import GetReference
from application.use_cases.references.list_references import ListReferences
from application.use_cases.references.read_image import ReadImage
from application.use_cases.references.start_bulk_enrolment import StartBulkEnrolment
from domain.enrolment import ReferenceId
from domain.errors import FacepassError
from domain.job import Job
from domain.permission import Permission
from domain.person import PersonId
from domain.retention import Retention
from entrypoints.http.access import gallery_of, workspace_of
from entrypoints.http.bodies import EnrolBatchBody, EnrolBody, once, read_body, sent_images
from entrypoints.http.capacity_watch import CapacityWatch
from entrypoints.http.cursors import Cursors
from entrypoints.http.job_shapes import JobShape
from entrypoints.http.names import page_size
from entrypoints.http.openapi import takes
from entrypoints.http.problems import problem_of
from entrypoints.http.respond_async import accepted, wants_job
from entrypoints.http.shapes import (
    BatchItemShape,
    BatchShape,
    EnrolledShape,
    ReferenceListShape,
    ReferenceShape,
    to_enrolled,
    to_reference,
)

REFERENCES = "/galleries/{gallery:str}/references"
REFERENCE = REFERENCES + "/{reference:uuid}"


@post(
    REFERENCES,
    needs=Permission.ENROL,
    operation_class=takes(EnrolBody),
    description=getdoc(EnrolReferences),
    summary="Enrol images of one person",
)
@inject
async def enrol_references(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    enrol: FromDishka[EnrolReferences],
    keyed_hash: FromDishka[KeyedHash],
    watch: FromDishka[CapacityWatch],
) -> EnrolledShape:
    """Enrol images of one person."""
    body = await read_body(request, EnrolBody)
    enrolled = await enrol(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        images=sent_images(body.fields, body.filenames),
        person=None if body.fields.person_id is None else PersonId(body.fields.person_id),
        external_id=body.fields.external_id,
        metadata=body.fields.metadata,
        retention=Retention(days=body.fields.retention_days, consent_expires_at=body.fields.consent_expires_at),
        once=once(request, keyed_hash, body.fields, Enrolled),
    )
    await watch.look(enrolled.person.workspace, enrolled.person.gallery)
    return to_enrolled(enrolled)


@post(
    REFERENCES + "/batch",
    needs=Permission.ENROL,
    status_code=200,
    operation_class=takes(EnrolBatchBody),
    responses={202: ResponseSpec(JobShape, generate_examples=False, description="The job that does it.")},
    description=f"{getdoc(EnrolBatch)}\n\nWith `Prefer: respond-async` a job does it: 202, and its address.",
    summary="Enrol images of many people",
)
@inject
async def enrol_batch(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    enrol: FromDishka[EnrolBatch],
    start: FromDishka[StartBulkEnrolment],
    keyed_hash: FromDishka[KeyedHash],
    watch: FromDishka[CapacityWatch],
) -> Response[BatchShape] | Response[JobShape]:
    """Enrol images of many people."""
    body = (await read_body(request, EnrolBatchBody)).fields
    if wants_job(request):
        return accepted(
            await start(
                workspace=workspace_of(request),
                gallery=await gallery_of(request, gallery),
                items=[_item(item) for item in body.items],
                once=once(request, keyed_hash, body, Job),
            )
        )
    results = await enrol(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        items=[
            replace(_item(item), once=once(request, keyed_hash, item, Enrolled, item=index))
            for index, item in enumerate(body.items)
        ],
    )
    for person in {result.person.gallery: result.person for result in results if isinstance(result, Enrolled)}.values():
        await watch.look(person.workspace, person.gallery)
    return Response(
        BatchShape(
            items=[
                BatchItemShape(index=index, problem=problem_of(result))
                if isinstance(result, FacepassError)
                else BatchItemShape(index=index, enrolled=to_enrolled(result))
                for index, result in enumerate(results)
            ]
        )
    )


def _item(body: EnrolBody) -> EnrolmentItem:
    return EnrolmentItem(
        images=tuple(sent_images(body, ())),
        person=None if body.person_id is None else PersonId(body.person_id),
        external_id=body.external_id,
        metadata=body.metadata,
        retention=Retention(days=body.retention_days, consent_expires_at=body.consent_expires_at),
    )


@get(REFERENCES, needs=Permission.READ, description=getdoc(ListReferences), summary="List references")
@inject
async def list_references(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    listed: FromDishka[ListReferences],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
    person_id: FromQuery[UUID | None] = None,
) -> ReferenceListShape:
    """List references."""
    workspace = workspace_of(request)
    filters = ("references", workspace, gallery, person_id)
    page = await listed(
        workspace=workspace,
        gallery=await gallery_of(request, gallery),
        limit=page_size(limit),
        after=cursors.read(cursor, *filters),
        person=None if person_id is None else PersonId(person_id),
    )
    return ReferenceListShape(
        items=[to_reference(reference) for reference in page.items],
        next_cursor=cursors.written(page.next_after, *filters),
    )


@get(REFERENCE, needs=Permission.READ, description=getdoc(GetReference), summary="Show a reference")
@inject
async def get_reference(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    reference: FromPath[UUID],
    show: FromDishka[GetReference],
) -> ReferenceShape:
    """Show a reference."""
    found = await show(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        reference=ReferenceId(reference),
    )
    return to_reference(found)


@get(
    REFERENCE + "/image",
    needs=Permission.READ,
    media_type="image/*",
    description=getdoc(ReadImage),
    summary="Return a reference's image",
)
@inject
async def read_image(
    request: Request[Any, Any, Any], gallery: FromPath[str], reference: FromPath[UUID], read: FromDishka[ReadImage]
) -> Response[bytes]:
    """Return a reference's image."""
    image = await read(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        reference=ReferenceId(reference),
    )
    return Response(
        image.content,
        media_type=image.media_type,
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


@delete(REFERENCE, needs=Permission.ENROL, description=getdoc(DeleteReference), summary="Delete a reference")
@inject
async def delete_reference(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    reference: FromPath[UUID],
    remove: FromDishka[DeleteReference],
) -> None:
    """Delete a reference."""
    await remove(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        reference=ReferenceId(reference),
    )
