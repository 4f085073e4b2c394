"""/users."""

from inspect import getdoc
from typing import Any
from uuid import UUID

from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath, FromQuery

from application.ports.accounts import UserFilter
from application.use_cases.accounts.create_user import CreatedUser, CreateUser, NewUser
from application.use_cases.accounts.create_users import CreateUsers
from application.use_cases.accounts.delete_user import DeleteUser
from application.use_cases.accounts.get_user import GetUser
from application.use_cases.accounts.list_users import ListUsers
from application.use_cases.accounts.make_link import MakeLink
from application.use_cases.accounts.restore_user import RestoreUser
from application.use_cases.accounts.update_user import UpdateUser
from domain.errors import FacepassError
from domain.permission import Permission
from domain.user import UserId
from entrypoints.http.access import user_of
from entrypoints.http.account_shapes import (
    NO_STORE,
    CreatedUserShape,
    LinkShape,
    UserBatchBody,
    UserBatchShape,
    UserBody,
    UserChangeBody,
    UserListShape,
    UserResultShape,
    UserShape,
    to_created,
    to_link,
    to_user,
)
from entrypoints.http.bodies import read_body, refuse_idempotency_key
from entrypoints.http.conditions import entity_tag, version_wanted
from entrypoints.http.cursors import Cursors
from entrypoints.http.names import page_size
from entrypoints.http.openapi import takes
from entrypoints.http.problems import problem_of, request_id_of
from entrypoints.settings import Settings

USER = "/users/{user:uuid}"


@post(
    "/users",
    needs=Permission.ADMINISTER,
    operation_class=takes(UserBody),
    description=getdoc(CreateUser),
    summary="Create a user",
)
@inject
async def create_user(
    request: Request[Any, Any, Any], create: FromDishka[CreateUser], settings: FromDishka[Settings]
) -> Response[CreatedUserShape]:
    """Create a user."""
    refuse_idempotency_key(request)
    created = await create(_new_user((await read_body(request, UserBody)).fields), made_by=user_of(request))
    headers = {**NO_STORE, **entity_tag(created.user.version)}
    return Response(to_created(created, public_url=settings.public_url), headers=headers)


@post(
    "/users/bulk",
    needs=Permission.ADMINISTER,
    status_code=200,
    operation_class=takes(UserBatchBody),
    description=getdoc(CreateUsers),
    summary="Create up to 100 users",
)
@inject
async def create_users(
    request: Request[Any, Any, Any], create: FromDishka[CreateUsers], settings: FromDishka[Settings]
) -> Response[UserBatchShape]:
    """Create up to 100 users."""
    refuse_idempotency_key(request)
    items = (await read_body(request, UserBatchBody)).fields.items
    results = await create([_new_user(item) for item in items], made_by=user_of(request))
    made = [_result(request, index, result, settings.public_url) for index, result in enumerate(results)]
    return Response(UserBatchShape(items=made), headers=NO_STORE)


@get("/users", needs=Permission.ADMINISTER, description=getdoc(ListUsers), summary="List users")
@inject
async def list_users(
    listed: FromDishka[ListUsers],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
    email: FromQuery[str | None] = None,
    administrator: FromQuery[bool | None] = None,
    deleted: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter, by name
) -> UserListShape:
    """List users."""
    filters = ("users", email, administrator, deleted)
    page = await listed(
        limit=page_size(limit),
        after=cursors.read(cursor, *filters),
        only=UserFilter(email=email, administrator=administrator, deleted=deleted),
    )
    return UserListShape(
        items=[to_user(user) for user in page.items], next_cursor=cursors.written(page.next_after, *filters)
    )


@get(USER, needs=Permission.ADMINISTER, description=getdoc(GetUser), summary="Show a user")
@inject
async def get_user(user: FromPath[UUID], show: FromDishka[GetUser]) -> Response[UserShape]:
    """Show a user."""
    found = await show(user=UserId(user))
    return Response(to_user(found), headers=entity_tag(found.version))


@patch(
    USER,
    needs=Permission.ADMINISTER,
    operation_class=takes(UserChangeBody),
    description=getdoc(UpdateUser),
    summary="Change a user",
)
@inject
async def update_user(
    request: Request[Any, Any, Any], user: FromPath[UUID], update: FromDishka[UpdateUser]
) -> Response[UserShape]:
    """Change a user."""
    body = (await read_body(request, UserChangeBody)).fields
    changed = await update(
        user=UserId(user),
        email=body.email,
        name=body.name,
        administrator=body.administrator,
        version=version_wanted(request),
    )
    return Response(to_user(changed), headers=entity_tag(changed.version))


@delete(USER, needs=Permission.ADMINISTER, description=getdoc(DeleteUser), summary="Delete a user")
@inject
async def delete_user(user: FromPath[UUID], remove: FromDishka[DeleteUser]) -> None:
    """Delete a user."""
    await remove(user=UserId(user))


@post(
    USER + "/restore",
    needs=Permission.ADMINISTER,
    status_code=200,
    description=getdoc(RestoreUser),
    summary="Restore a deleted user",
)
@inject
async def restore_user(user: FromPath[UUID], restore: FromDishka[RestoreUser]) -> Response[UserShape]:
    """Restore a deleted user."""
    restored = await restore(user=UserId(user))
    return Response(to_user(restored), headers=entity_tag(restored.version))


@post(
    USER + "/password-link",
    needs=Permission.ADMINISTER,
    description=getdoc(MakeLink),
    summary="Make a one-time link that sets a user's password",
)
@inject
async def make_password_link(
    request: Request[Any, Any, Any],
    user: FromPath[UUID],
    make: FromDishka[MakeLink],
    settings: FromDishka[Settings],
) -> Response[LinkShape]:
    """Make a one-time link that sets a user's password."""
    refuse_idempotency_key(request)
    made = await make(made_by=user_of(request), user=UserId(user))
    return Response(to_link(made, public_url=settings.public_url), headers=NO_STORE)


def _new_user(body: UserBody) -> NewUser:
    return NewUser(
        email=body.email,
        name=body.name,
        administrator=body.administrator,
        password=body.password,
        password_link=body.password_link,
    )


def _result(
    request: Request[Any, Any, Any], index: int, result: CreatedUser | FacepassError, public_url: str
) -> UserResultShape:
    if isinstance(result, FacepassError):
        problem = problem_of(result, instance=request.url.path, request_id=request_id_of(request))
        return UserResultShape(index=index, problem=problem)
    created = to_created(result, public_url=public_url)
    return UserResultShape(index=index, user=created.user, link=created.link)
