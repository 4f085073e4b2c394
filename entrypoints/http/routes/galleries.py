"""/galleries."""

from inspect import getdoc
from typing import Any

from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath, FromQuery

from application.ports.keyed_hash import KeyedHash
from application.use_cases.galleries.create_gallery import CreateGallery
from application.use_cases.galleries.delete_gallery import DeleteGallery
from application.use_cases.galleries.finish_migration import FinishMigration
from application.use_cases.galleries.get_gallery import GetGallery
from application.use_cases.galleries.get_migration import GetMigration
from application.use_cases.galleries.list_galleries import ListGalleries
from application.use_cases.galleries.list_left_behind import ListLeftBehind
from application.use_cases.galleries.migrate_gallery import MigrateGallery
from application.use_cases.galleries.update_gallery import UpdateGallery
from domain.gallery import Gallery, Policy
from domain.permission import Permission
from entrypoints.http.access import gallery_of, principal_of, require_all_galleries, workspace_of
from entrypoints.http.bodies import GalleryBody, GalleryChangeBody, MigrationBody, once, read_body
from entrypoints.http.conditions import entity_tag, version_wanted
from entrypoints.http.cursors import Cursors
from entrypoints.http.job_shapes import JobShape
from entrypoints.http.names import page_size
from entrypoints.http.openapi import takes
from entrypoints.http.policies import policy_from
from entrypoints.http.respond_async import accepted
from entrypoints.http.shapes import (
    GalleryListShape,
    GalleryShape,
    LeftBehindListShape,
    MigrationShape,
    to_gallery,
    to_gallery_state,
    to_left_behind,
    to_migration,
)


@post(
    "/galleries",
    needs=Permission.MANAGE,
    operation_class=takes(GalleryBody),
    description=getdoc(CreateGallery),
    summary="Create a gallery",
)
@inject
async def create_gallery(
    request: Request[Any, Any, Any], create: FromDishka[CreateGallery], keyed_hash: FromDishka[KeyedHash]
) -> Response[GalleryShape]:
    """Create a gallery."""
    require_all_galleries(request)
    body = (await read_body(request, GalleryBody)).fields
    gallery = await create(
        workspace=workspace_of(request),
        name=body.name,
        policy=policy_from(body.policy, Policy()),
        once=once(request, keyed_hash, body, Gallery),
    )
    return Response(to_gallery(gallery), headers=entity_tag(gallery.version))


@get("/galleries", needs=Permission.READ, description=getdoc(ListGalleries), summary="List galleries")
@inject
async def list_galleries(
    request: Request[Any, Any, Any],
    listed: FromDishka[ListGalleries],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> GalleryListShape:
    """List galleries."""
    workspace = workspace_of(request)
    page = await listed(
        workspace=workspace,
        limit=page_size(limit),
        after=cursors.read(cursor, "galleries", workspace),
        among=principal_of(request).galleries,
    )
    return GalleryListShape(
        items=[to_gallery(gallery) for gallery in page.items],
        next_cursor=cursors.written(page.next_after, "galleries", workspace),
    )


@get("/galleries/{gallery:str}", needs=Permission.READ, description=getdoc(GetGallery), summary="Show a gallery")
@inject
async def get_gallery(
    request: Request[Any, Any, Any], gallery: FromPath[str], show: FromDishka[GetGallery]
) -> Response[GalleryShape]:
    """Show a gallery."""
    state = await show(workspace=workspace_of(request), gallery=await gallery_of(request, gallery))
    return Response(to_gallery_state(state), headers=entity_tag(state.gallery.version))


@patch(
    "/galleries/{gallery:str}",
    needs=Permission.MANAGE,
    operation_class=takes(GalleryChangeBody),
    description=getdoc(UpdateGallery),
    summary="Change a gallery",
)
@inject
async def update_gallery(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    update: FromDishka[UpdateGallery],
    show: FromDishka[GetGallery],
) -> Response[GalleryShape]:
    """Change a gallery."""
    body = (await read_body(request, GalleryChangeBody)).fields
    workspace, named = workspace_of(request), await gallery_of(request, gallery)
    policy = None
    if body.policy is not None:
        policy = policy_from(body.policy, (await show(workspace=workspace, gallery=named)).gallery.policy)
    changed = await update(
        workspace=workspace, gallery=named, name=body.name, policy=policy, version=version_wanted(request)
    )
    return Response(to_gallery(changed), headers=entity_tag(changed.version))


@delete(
    "/galleries/{gallery:str}", needs=Permission.MANAGE, description=getdoc(DeleteGallery), summary="Delete a gallery"
)
@inject
async def delete_gallery(
    request: Request[Any, Any, Any], gallery: FromPath[str], remove: FromDishka[DeleteGallery]
) -> None:
    """Delete a gallery."""
    await remove(workspace=workspace_of(request), gallery=await gallery_of(request, gallery))


@post(
    "/galleries/{gallery:str}/migrate",
    needs=Permission.MANAGE,
    status_code=202,
    operation_class=takes(MigrationBody),
    description=getdoc(MigrateGallery),
    summary="Move a gallery to another model",
)
@inject
async def migrate_gallery(
    request: Request[Any, Any, Any], gallery: FromPath[str], migrate: FromDishka[MigrateGallery]
) -> Response[JobShape]:
    """Move a gallery to another model."""
    body = (await read_body(request, MigrationBody)).fields
    job = await migrate(
        workspace=workspace_of(request),
        gallery=await gallery_of(request, gallery),
        to=body.to,
        switch=body.switch,
        leave_behind=body.leave_behind,
    )
    return accepted(job)


@get(
    "/galleries/{gallery:str}/migration",
    needs=Permission.READ,
    description=getdoc(GetMigration),
    summary="Show how far a gallery is on its way to another model",
)
@inject
async def get_migration(
    request: Request[Any, Any, Any], gallery: FromPath[str], show: FromDishka[GetMigration]
) -> MigrationShape:
    """Show how far a gallery is on its way to another model."""
    return to_migration(await show(workspace=workspace_of(request), gallery=await gallery_of(request, gallery)))


@get(
    "/galleries/{gallery:str}/migration/left-behind",
    needs=Permission.READ,
    description=getdoc(ListLeftBehind),
    summary="List the references that could not follow",
)
@inject
async def list_left_behind(
    request: Request[Any, Any, Any],
    gallery: FromPath[str],
    listed: FromDishka[ListLeftBehind],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> LeftBehindListShape:
    """List the references that could not follow."""
    workspace = workspace_of(request)
    filters = ("left-behind", workspace, gallery)
    page = await listed(
        workspace=workspace,
        gallery=await gallery_of(request, gallery),
        limit=page_size(limit),
        after=cursors.read(cursor, *filters),
    )
    return LeftBehindListShape(
        items=[to_left_behind(one) for one in page.items], next_cursor=cursors.written(page.next_after, *filters)
    )


@delete(
    "/galleries/{gallery:str}/migration",
    needs=Permission.MANAGE,
    status_code=202,
    description=getdoc(FinishMigration),
    summary="Finish the migration of a gallery",
)
@inject
async def finish_migration(
    request: Request[Any, Any, Any], gallery: FromPath[str], finish: FromDishka[FinishMigration]
) -> Response[JobShape]:
    """Finish the migration of a gallery."""
    return accepted(await finish(workspace=workspace_of(request), gallery=await gallery_of(request, gallery)))
