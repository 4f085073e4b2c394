"""/workspaces."""

from inspect import getdoc
from typing import Any
from uuid import UUID

from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath, FromQuery

from application.use_cases.workspaces.add_member import AddMember
from application.use_cases.workspaces.change_member import ChangeMember
from application.use_cases.workspaces.create_workspace import CreateWorkspace
from application.use_cases.workspaces.get_workspace import GetWorkspace
from application.use_cases.workspaces.invite_member import InviteMember
from application.use_cases.workspaces.list_invitations import ListInvitations
from application.use_cases.workspaces.list_members import ListMembers
from application.use_cases.workspaces.list_workspaces import ListWorkspaces
from application.use_cases.workspaces.remove_member import RemoveMember
from application.use_cases.workspaces.update_workspace import UpdateWorkspace
from application.use_cases.workspaces.withdraw_invitation import WithdrawInvitation
from domain.permission import Permission, Role, checked_role
from domain.user import LinkId, UserId
from domain.workspace import WorkspaceId
from entrypoints.http.access import principal_of, user_of
from entrypoints.http.access_shapes import (
    InvitationListShape,
    MemberListShape,
    MemberShape,
    WorkspaceListShape,
    WorkspaceShape,
    to_invitation,
    to_member,
    to_workspace,
)
from entrypoints.http.account_shapes import NO_STORE, LinkShape, to_link
from entrypoints.http.bodies import (
    InvitationBody,
    MemberBody,
    MemberChangeBody,
    WorkspaceBody,
    WorkspaceChangeBody,
    read_body,
    refuse_idempotency_key,
)
from entrypoints.http.conditions import entity_tag, version_wanted
from entrypoints.http.cursors import Cursors
from entrypoints.http.names import page_size
from entrypoints.http.openapi import takes
from entrypoints.settings import Settings

WORKSPACES = "/workspaces"
WORKSPACE = WORKSPACES + "/{workspace:uuid}"
MEMBERS = WORKSPACE + "/members"
MEMBER = MEMBERS + "/{user:uuid}"
INVITATIONS = WORKSPACE + "/invitations"


@get(WORKSPACES, needs=Permission.ACCOUNT, description=getdoc(ListWorkspaces), summary="List workspaces")
@inject
async def list_workspaces(
    request: Request[Any, Any, Any],
    listed: FromDishka[ListWorkspaces],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> WorkspaceListShape:
    """List workspaces."""
    filters = ("workspaces", user_of(request))
    page, roles = await listed(
        viewer=principal_of(request), limit=page_size(limit), after=cursors.read(cursor, *filters)
    )
    return WorkspaceListShape(
        items=[to_workspace(one, roles.get(one.id)) for one in page.items],
        next_cursor=cursors.written(page.next_after, *filters),
    )


@post(
    WORKSPACES,
    needs=Permission.ADMINISTER,
    operation_class=takes(WorkspaceBody),
    description=getdoc(CreateWorkspace),
    summary="Create a workspace",
)
@inject
async def create_workspace(
    request: Request[Any, Any, Any], create: FromDishka[CreateWorkspace]
) -> Response[WorkspaceShape]:
    """Create a workspace."""
    body = (await read_body(request, WorkspaceBody)).fields
    maker = user_of(request)
    owner = maker if body.owner_id is None else UserId(body.owner_id)
    workspace = await create(name=body.name, owner=owner)
    role = Role.OWNER if owner == maker else None
    return Response(to_workspace(workspace, role), headers=entity_tag(workspace.version))


@get(WORKSPACE, needs=Permission.READ, description=getdoc(GetWorkspace), summary="Show a workspace")
@inject
async def get_workspace(
    request: Request[Any, Any, Any], workspace: FromPath[UUID], show: FromDishka[GetWorkspace]
) -> Response[WorkspaceShape]:
    """Show a workspace."""
    found = await show(workspace=WorkspaceId(workspace))
    return Response(to_workspace(found, principal_of(request).role), headers=entity_tag(found.version))


@patch(
    WORKSPACE,
    needs=Permission.WORKSPACE,
    operation_class=takes(WorkspaceChangeBody),
    description=getdoc(UpdateWorkspace),
    summary="Rename a workspace",
)
@inject
async def update_workspace(
    request: Request[Any, Any, Any], workspace: FromPath[UUID], update: FromDishka[UpdateWorkspace]
) -> Response[WorkspaceShape]:
    """Rename a workspace."""
    body = (await read_body(request, WorkspaceChangeBody)).fields
    changed = await update(workspace=WorkspaceId(workspace), name=body.name, version=version_wanted(request))
    return Response(to_workspace(changed, principal_of(request).role), headers=entity_tag(changed.version))


@get(MEMBERS, needs=Permission.MEMBERS, description=getdoc(ListMembers), summary="List members")
@inject
async def list_members(
    workspace: FromPath[UUID],
    listed: FromDishka[ListMembers],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> MemberListShape:
    """List members."""
    page = await listed(
        workspace=WorkspaceId(workspace), limit=page_size(limit), after=cursors.read(cursor, "members", workspace)
    )
    return MemberListShape(
        items=[to_member(one) for one in page.items],
        next_cursor=cursors.written(page.next_after, "members", workspace),
    )


@post(
    MEMBERS,
    needs=Permission.MEMBERS,
    operation_class=takes(MemberBody),
    description=getdoc(AddMember),
    summary="Add a member",
)
@inject
async def add_member(
    request: Request[Any, Any, Any], workspace: FromPath[UUID], add: FromDishka[AddMember]
) -> MemberShape:
    """Add a member."""
    body = (await read_body(request, MemberBody)).fields
    member = await add(
        workspace=WorkspaceId(workspace),
        giver=principal_of(request),
        user=UserId(body.user_id),
        role=checked_role(body.role),
    )
    return to_member(member)


@patch(
    MEMBER,
    needs=Permission.MEMBERS,
    operation_class=takes(MemberChangeBody),
    description=getdoc(ChangeMember),
    summary="Change a member's role",
)
@inject
async def change_member(
    request: Request[Any, Any, Any], workspace: FromPath[UUID], user: FromPath[UUID], change: FromDishka[ChangeMember]
) -> MemberShape:
    """Change a member's role."""
    body = (await read_body(request, MemberChangeBody)).fields
    member = await change(
        workspace=WorkspaceId(workspace),
        giver=principal_of(request),
        user=UserId(user),
        role=checked_role(body.role),
    )
    return to_member(member)


@delete(MEMBER, needs=Permission.MEMBERS, description=getdoc(RemoveMember), summary="Remove a member")
@inject
async def remove_member(
    request: Request[Any, Any, Any], workspace: FromPath[UUID], user: FromPath[UUID], remove: FromDishka[RemoveMember]
) -> None:
    """Remove a member."""
    await remove(workspace=WorkspaceId(workspace), remover=principal_of(request), user=UserId(user))


@delete(
    MEMBERS + "/me",
    needs=Permission.ACCOUNT,
    description="Leave a workspace, whatever one's role there. The last owner stays.",
    summary="Leave a workspace",
)
@inject
async def leave_workspace(
    request: Request[Any, Any, Any], workspace: FromPath[UUID], remove: FromDishka[RemoveMember]
) -> None:
    """Leave a workspace."""
    await remove(workspace=WorkspaceId(workspace), remover=principal_of(request), user=user_of(request))


@post(
    INVITATIONS,
    needs=Permission.MEMBERS,
    operation_class=takes(InvitationBody),
    description=getdoc(InviteMember),
    summary="Invite somebody to a workspace",
)
@inject
async def invite_member(
    request: Request[Any, Any, Any],
    workspace: FromPath[UUID],
    invite: FromDishka[InviteMember],
    settings: FromDishka[Settings],
) -> Response[LinkShape]:
    """Invite somebody to a workspace."""
    refuse_idempotency_key(request)
    body = (await read_body(request, InvitationBody)).fields
    made = await invite(
        workspace=WorkspaceId(workspace),
        giver=principal_of(request),
        role=checked_role(body.role),
        email=body.email,
    )
    return Response(to_link(made, public_url=settings.public_url), headers=NO_STORE)


@get(INVITATIONS, needs=Permission.MEMBERS, description=getdoc(ListInvitations), summary="List open invitations")
@inject
async def list_invitations(
    workspace: FromPath[UUID],
    listed: FromDishka[ListInvitations],
    cursors: FromDishka[Cursors],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> InvitationListShape:
    """List open invitations."""
    page = await listed(
        workspace=WorkspaceId(workspace), limit=page_size(limit), after=cursors.read(cursor, "invitations", workspace)
    )
    return InvitationListShape(
        items=[to_invitation(one) for one in page.items],
        next_cursor=cursors.written(page.next_after, "invitations", workspace),
    )


@delete(
    INVITATIONS + "/{invitation:uuid}",
    needs=Permission.MEMBERS,
    description=getdoc(WithdrawInvitation),
    summary="Withdraw an invitation",
)
@inject
async def withdraw_invitation(
    request: Request[Any, Any, Any],
    workspace: FromPath[UUID],
    invitation: FromPath[UUID],
    withdraw: FromDishka[WithdrawInvitation],
) -> None:
    """Withdraw an invitation."""
    await withdraw(workspace=WorkspaceId(workspace), remover=principal_of(request), invitation=LinkId(invitation))
