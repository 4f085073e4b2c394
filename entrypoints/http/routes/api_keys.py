"""/api-keys."""

from datetime import timedelta
from inspect import getdoc
from typing import Any
from uuid import UUID

from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, FromQuery

from application.use_cases.keys.create_api_key import CreateApiKey
from application.use_cases.keys.get_api_key import GetApiKey
from application.use_cases.keys.list_api_keys import ListApiKeys
from application.use_cases.keys.revoke_api_key import RevokeApiKey
from application.use_cases.keys.rotate_api_key import RotateApiKey
from domain.credential import ApiKeyId
from domain.permission import Permission, checked_scopes
from entrypoints.http.access import gallery_of, principal_of, workspace_of
from entrypoints.http.access_shapes import ApiKeyListShape, ApiKeyShape, IssuedKeyShape, to_api_key, to_issued_key
from entrypoints.http.bodies import ApiKeyBody, RotationBody, read_body, refuse_idempotency_key
from entrypoints.http.cursors import Cursors
from entrypoints.http.names import page_size
from entrypoints.http.openapi import takes

KEYS = "/api-keys"
KEY = KEYS + "/{key:uuid}"

_UNSEEN = {"Cache-Control": "no-store"}


@post(
    KEYS,
    needs=Permission.KEYS,
    operation_class=takes(ApiKeyBody),
    description=getdoc(CreateApiKey),
    summary="Create an API key",
)
@inject
async def create_api_key(request: Request[Any, Any, Any], create: FromDishka[CreateApiKey]) -> Response[IssuedKeyShape]:
    """Create an API key."""
    refuse_idempotency_key(request)
    body = (await read_body(request, ApiKeyBody)).fields
    named = None if body.galleries is None else [await gallery_of(request, one) for one in body.galleries]
    issued = await create(
        workspace=workspace_of(request),
        maker=principal_of(request),
        name=body.name,
        scopes=checked_scopes(body.scopes),
        galleries=named,
        expires_at=body.expires_at,
    )
    return Response(to_issued_key(issued), headers=_UNSEEN)


@get(KEYS, needs=Permission.KEYS, description=getdoc(ListApiKeys), summary="List API keys")
@inject
async def list_api_keys(
    request: Request[Any, Any, Any],
    listed: FromDishka[ListApiKeys],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> ApiKeyListShape:
    """List API keys."""
    workspace = workspace_of(request)
    page = await listed(
        workspace=workspace,
        viewer=principal_of(request),
        limit=page_size(limit),
        after=cursors.read(cursor, "api-keys", workspace),
    )
    return ApiKeyListShape(
        items=[to_api_key(key) for key in page.items],
        next_cursor=cursors.written(page.next_after, "api-keys", workspace),
    )


@get(KEY, needs=Permission.KEYS, description=getdoc(GetApiKey), summary="Show an API key")
@inject
async def get_api_key(request: Request[Any, Any, Any], key: FromPath[UUID], show: FromDishka[GetApiKey]) -> ApiKeyShape:
    """Show an API key."""
    return to_api_key(await show(workspace=workspace_of(request), viewer=principal_of(request), key=ApiKeyId(key)))


@post(
    KEY + "/rotate",
    needs=Permission.KEYS,
    operation_class=takes(RotationBody),
    description=getdoc(RotateApiKey),
    summary="Put another API key in the place of one",
)
@inject
async def rotate_api_key(
    request: Request[Any, Any, Any], key: FromPath[UUID], rotate: FromDishka[RotateApiKey]
) -> Response[IssuedKeyShape]:
    """Put another API key in the place of one."""
    refuse_idempotency_key(request)
    body = (await read_body(request, RotationBody)).fields
    issued = await rotate(
        workspace=workspace_of(request),
        rotator=principal_of(request),
        key=ApiKeyId(key),
        overlap=timedelta(seconds=body.overlap_seconds),
    )
    return Response(to_issued_key(issued), headers=_UNSEEN)


@delete(KEY, needs=Permission.KEYS, description=getdoc(RevokeApiKey), summary="Revoke an API key")
@inject
async def revoke_api_key(
    request: Request[Any, Any, Any], key: FromPath[UUID], revoke: FromDishka[RevokeApiKey]
) -> None:
    """Revoke an API key."""
    await revoke(workspace=workspace_of(request), revoker=principal_of(request), key=ApiKeyId(key))
