"""/galleries/{gallery}/people."""

from inspect import getdoc
from typing import Any
from uuid import UUID

import msgspec
from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from application.ports.keyed_hash import KeyedHash
from application.ports.receipts import ReceiptSigner
from application.use_cases.erasure.erase_person import ErasePerson
from application.use_cases.erasure.export_person import ExportPerson
from application.use_cases.erasure.receipts import public_key_of
from application.use_cases.people.create_person import CreatePerson
from application.use_cases.people.delete_person import DeletePerson
from application.use_cases.people.get_person import GetPerson
from application.use_cases.people.list_people import ListPeople
from application.use_cases.people.merge_people import MergePeople
from application.use_cases.people.unmerge_people import UnmergePeople
from application.use_cases.people.update_person import UNCHANGED, UpdatePerson
from domain.erasure import ErasureId
from domain.permission import Permission
from domain.person import Person, PersonId
from domain.retention import Retention
from entrypoints.http.access import gallery_of, while_allowed, workspace_of
from entrypoints.http.archives import zipped
from entrypoints.http.bodies import MergeBody, PersonBody, PersonChangeBody, once, read_body
from entrypoints.http.conditions import entity_tag, version_wanted
from entrypoints.http.cursors import Cursors
from entrypoints.http.names import page_size
from entrypoints.http.openapi import takes
from entrypoints.http.shapes import PersonListShape, PersonShape, to_person, to_person_state


class _Nothing(msgspec.Struct, frozen=True):
    """The body of a call that has none."""


PEOPLE = "/galleries/{gallery:str}/people"
PERSON = PEOPLE + "/{person:uuid}"


@post(
    PEOPLE,
    needs=Permission.ENROL,
    operation_class=takes(PersonBody),
    description=getdoc(CreatePerson),
    summary="Create a person",
)
@inject
async def create_person(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    create: FromDishka[CreatePerson],
    keyed_hash: FromDishka[KeyedHash],
) -> Response[PersonShape]:
    """Create a person."""
    body = (await read_body(request, PersonBody)).fields
    person = await create(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        external_id=body.external_id,
        metadata=body.metadata,
        retention=Retention(days=body.retention_days, consent_expires_at=body.consent_expires_at),
        once=once(request, keyed_hash, body, Person),
    )
    return Response(to_person(person), headers=entity_tag(person.version))


@get(PEOPLE, needs=Permission.READ, description=getdoc(ListPeople), summary="List people")
@inject
async def list_people(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    listed: FromDishka[ListPeople],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
    external_id: FromQuery[str | None] = None,
) -> PersonListShape:
    """List people."""
    workspace = workspace_of(request)
    filters = ("people", workspace, gallery, external_id)
    page = await listed(
        workspace=workspace,
        gallery=await gallery_of(request, gallery),
        limit=page_size(limit),
        after=cursors.read(cursor, *filters),
        external_id=external_id,
    )
    return PersonListShape(
        items=[to_person(person) for person in page.items], next_cursor=cursors.written(page.next_after, *filters)
    )


@get(PERSON, needs=Permission.READ, description=getdoc(GetPerson), summary="Show a person")
@inject
async def get_person(
    request: Request[Any, Any, Any], gallery: FromPath[str], person: FromPath[UUID], show: FromDishka[GetPerson]
) -> Response[PersonShape]:
    """Show a person."""
    found = await show(
        workspace=workspace_of(request), gallery=await gallery_of(request, gallery), person=PersonId(person)
    )
    return Response(to_person_state(found), headers=entity_tag(found.person.version))


@patch(
    PERSON,
    needs=Permission.ENROL,
    operation_class=takes(PersonChangeBody),
    description=getdoc(UpdatePerson),
    summary="Change a person",
)
@inject
async def update_person(
    request: Request[Any, Any, Any], gallery: FromPath[str], person: FromPath[UUID], update: FromDishka[UpdatePerson]
) -> Response[PersonShape]:
    """Change a person."""
    body = (await read_body(request, PersonChangeBody)).fields
    changed = await update(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        person=PersonId(person),
        external_id=UNCHANGED if body.external_id is msgspec.UNSET else body.external_id,
        metadata=UNCHANGED if body.metadata is msgspec.UNSET else body.metadata,
        retention_days=UNCHANGED if body.retention_days is msgspec.UNSET else body.retention_days,
        consent_expires_at=UNCHANGED if body.consent_expires_at is msgspec.UNSET else body.consent_expires_at,
        version=version_wanted(request),
    )
    return Response(to_person(changed), headers=entity_tag(changed.version))


@delete(PERSON, needs=Permission.ENROL, description=getdoc(DeletePerson), summary="Delete a person")
@inject
async def delete_person(
    request: Request[Any, Any, Any], gallery: FromPath[str], person: FromPath[UUID], remove: FromDishka[DeletePerson]
) -> None:
    """Delete a person."""
    await remove(workspace=workspace_of(request), gallery=await gallery_of(request, gallery), person=PersonId(person))


@post(
    PERSON + "/erase",
    needs=Permission.ERASE,
    status_code=200,
    description=getdoc(ErasePerson),
    summary="Erase a person, with a signed receipt",
)
@inject
async def erase_person(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    person: FromPath[UUID],
    erase: FromDishka[ErasePerson],
    keyed_hash: FromDishka[KeyedHash],
) -> dict[str, Any]:
    """Erase a person."""
    receipt = await erase(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        person=PersonId(person),
        once=once(request, keyed_hash, _Nothing(), ErasureId),
    )
    return dict(receipt)


@get(
    PERSON + "/export",
    needs=Permission.EXPORT,
    media_type="application/zip",
    description=getdoc(ExportPerson),
    summary="Export what is kept about a person",
)
@inject
async def export_person(
    request: Request[Any, Any, Any], gallery: FromPath[str], person: FromPath[UUID], export: FromDishka[ExportPerson]
) -> Stream:
    """Export what is kept about a person."""
    pieces = await export(
        workspace=workspace_of(request), gallery=await gallery_of(request, gallery), person=PersonId(person)
    )
    return Stream(
        zipped(while_allowed(request, pieces)),
        media_type="application/zip",
        headers={
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": f'attachment; filename="person-{person}.zip"',
        },
    )


@get(
    "/.well-known/facepass-receipts",
    description="The public key that signed receipts of erasures are checked with: Ed25519, 32 bytes in base64.",
    summary="Show the key of receipts",
)
@inject
async def receipts_key(signer: FromDishka[ReceiptSigner]) -> dict[str, str]:
    """Show it to anybody."""
    return public_key_of(signer)


@post(
    PERSON + "/merge",
    needs=Permission.ENROL,
    status_code=200,
    operation_class=takes(MergeBody),
    description=getdoc(MergePeople),
    summary="Merge another person into this one",
)
@inject
async def merge_people(
    request: Request[Any, Any, Any], gallery: FromPath[str], person: FromPath[UUID], merge: FromDishka[MergePeople]
) -> Response[PersonShape]:
    """Merge another person into this one."""
    body = (await read_body(request, MergeBody)).fields
    survivor = await merge(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        source=PersonId(body.person_id),
        target=PersonId(person),
    )
    return Response(to_person(survivor), headers=entity_tag(survivor.version))


@post(
    PERSON + "/unmerge",
    needs=Permission.ENROL,
    status_code=200,
    operation_class=takes(MergeBody),
    description=getdoc(UnmergePeople),
    summary="Take a merged person out of this one again",
)
@inject
async def unmerge_people(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    person: FromPath[UUID],
    unmerge: FromDishka[UnmergePeople],
) -> Response[PersonShape]:
    """Take a merged person out of this one again."""
    body = (await read_body(request, MergeBody)).fields
    restored = await unmerge(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        source=PersonId(body.person_id),
        target=PersonId(person),
    )
    return Response(to_person(restored), headers=entity_tag(restored.version))
