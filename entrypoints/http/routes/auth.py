"""/auth."""

from inspect import getdoc
from typing import Any
from uuid import UUID

from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from application.use_cases.accounts.accept_invitation import AcceptInvitation
from application.use_cases.accounts.change_password import ChangePassword
from application.use_cases.accounts.end_session import EndSession
from application.use_cases.accounts.list_sessions import ListSessions
from application.use_cases.accounts.log_in import LogIn
from application.use_cases.accounts.log_out import LogOut
from application.use_cases.accounts.refresh_tokens import RefreshTokens
from application.use_cases.accounts.register import Register
from application.use_cases.accounts.reset_password import ResetPassword
from application.use_cases.accounts.show_account import ShowAccount
from application.use_cases.accounts.show_link import ShowLink
from domain.permission import Permission
from domain.user import SessionId
from entrypoints.http.access import signed_in
from entrypoints.http.account_shapes import (
    NO_STORE,
    AccountShape,
    LinkBody,
    LinkPurposeShape,
    LoginBody,
    MembershipShape,
    PasswordBody,
    RefreshBody,
    RegisterBody,
    ResetBody,
    SessionListShape,
    TokensShape,
    UserShape,
    to_membership,
    to_session,
    to_tokens,
    to_user,
)
from entrypoints.http.bodies import read_body, refuse_idempotency_key
from entrypoints.http.openapi import takes
from entrypoints.http.rate_limits import RateLimits


@post(
    "/auth/register",
    needs=Permission.OPEN,
    security=[],
    operation_class=takes(RegisterBody),
    description=getdoc(Register),
    summary="Register",
)
@inject
async def register(request: Request[Any, Any, Any], register: FromDishka[Register]) -> Response[UserShape]:
    """Register."""
    body = (await read_body(request, RegisterBody)).fields
    user = await register(email=body.email, password=body.password, name=body.name, invitation=body.invitation)
    return Response(to_user(user), headers=NO_STORE)


@post(
    "/auth/login",
    needs=Permission.OPEN,
    status_code=200,
    security=[],
    operation_class=takes(LoginBody),
    description=getdoc(LogIn),
    summary="Log in",
)
@inject
async def log_in(request: Request[Any, Any, Any], log: FromDishka[LogIn]) -> Response[TokensShape]:
    """Log in."""
    refuse_idempotency_key(request)
    body = (await read_body(request, LoginBody)).fields
    tokens = await log(email=body.email, password=body.password, agent=request.headers.get("user-agent", ""))
    return Response(to_tokens(tokens), headers=NO_STORE)


@post(
    "/auth/refresh",
    needs=Permission.OPEN,
    status_code=200,
    security=[],
    operation_class=takes(RefreshBody),
    description=getdoc(RefreshTokens),
    summary="Get new tokens",
)
@inject
async def refresh_tokens(request: Request[Any, Any, Any], refresh: FromDishka[RefreshTokens]) -> Response[TokensShape]:
    """Get new tokens."""
    refuse_idempotency_key(request)
    body = (await read_body(request, RefreshBody)).fields
    return Response(to_tokens(await refresh(refresh_token=body.refresh_token)), headers=NO_STORE)


@post("/auth/logout", needs=Permission.ACCOUNT, status_code=204, description=getdoc(LogOut), summary="Log out")
@inject
async def log_out(request: Request[Any, Any, Any], log: FromDishka[LogOut]) -> None:
    """Log out."""
    user, session = signed_in(request)
    await log(user=user, session=session)


@post(
    "/auth/password",
    needs=Permission.ACCOUNT,
    status_code=204,
    operation_class=takes(PasswordBody),
    description=getdoc(ChangePassword),
    summary="Change your password",
)
@inject
async def change_password(request: Request[Any, Any, Any], change: FromDishka[ChangePassword]) -> None:
    """Change your password."""
    user, session = signed_in(request)
    limits: RateLimits = request.app.state.rate_limits
    await limits.password_call(request, user)
    body = (await read_body(request, PasswordBody)).fields
    await change(user=user, session=session, current=body.current_password, new=body.new_password)


@post(
    "/auth/password/reset",
    needs=Permission.OPEN,
    status_code=204,
    security=[],
    operation_class=takes(ResetBody),
    description=getdoc(ResetPassword),
    summary="Set a password with a one-time link",
)
@inject
async def reset_password(request: Request[Any, Any, Any], reset: FromDishka[ResetPassword]) -> None:
    """Set a password with a one-time link."""
    body = (await read_body(request, ResetBody)).fields
    await reset(token=body.token, password=body.password)


@post(
    "/auth/link",
    needs=Permission.OPEN,
    status_code=200,
    security=[],
    operation_class=takes(LinkBody),
    description=getdoc(ShowLink),
    summary="Tell what a one-time link is for",
)
@inject
async def show_link(request: Request[Any, Any, Any], show: FromDishka[ShowLink]) -> Response[LinkPurposeShape]:
    """Tell what a one-time link is for."""
    link = await show(token=(await read_body(request, LinkBody)).fields.token)
    return Response(LinkPurposeShape(purpose=link.purpose.value, expires_at=link.expires_at), headers=NO_STORE)


@post(
    "/auth/invitation",
    needs=Permission.ACCOUNT,
    status_code=200,
    operation_class=takes(LinkBody),
    description=getdoc(AcceptInvitation),
    summary="Accept an invitation to a workspace",
)
@inject
async def accept_invitation(request: Request[Any, Any, Any], accept: FromDishka[AcceptInvitation]) -> MembershipShape:
    """Accept an invitation to a workspace."""
    body = (await read_body(request, LinkBody)).fields
    return to_membership(await accept(user=signed_in(request)[0], invitation=body.token))


@get("/auth/me", needs=Permission.ACCOUNT, description=getdoc(ShowAccount), summary="Show who you are")
@inject
async def show_account(request: Request[Any, Any, Any], show: FromDishka[ShowAccount]) -> Response[AccountShape]:
    """Show who you are."""
    user, memberships = await show(user=signed_in(request)[0])
    return Response(
        AccountShape(user=to_user(user), memberships=[to_membership(one) for one in memberships]), headers=NO_STORE
    )


@get("/auth/sessions", needs=Permission.ACCOUNT, description=getdoc(ListSessions), summary="List your sessions")
@inject
async def list_sessions(
    request: Request[Any, Any, Any], listed: FromDishka[ListSessions]
) -> Response[SessionListShape]:
    """List your sessions."""
    user, current = signed_in(request)
    items = [to_session(session, current=current) for session in await listed(user=user)]
    return Response(SessionListShape(items=items), headers=NO_STORE)


@delete(
    "/auth/sessions/{session:uuid}",
    needs=Permission.ACCOUNT,
    description=getdoc(EndSession),
    summary="End one of your sessions",
)
@inject
async def end_session(request: Request[Any, Any, Any], session: FromPath[UUID], end: FromDishka[EndSession]) -> None:
    """End one of your sessions."""
    await end(user=signed_in(request)[0], session=SessionId(session))
