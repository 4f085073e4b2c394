"""The HTTP application, around a container."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, cast

from dishka import AsyncContainer
from dishka.integrations.litestar import setup_dishka
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, ControllerRouterHandler
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from domain.errors import FacepassError
from entrypoints.http.access import guard
from entrypoints.http.allowed_hosts import allowed_hosts
from entrypoints.http.cross_origin import cross_origin
from entrypoints.http.docs import PROBLEMS, assets_router, openapi_config, openapi_document
from entrypoints.http.plain_paths import plain_paths
from entrypoints.http.problems import on_any_error, on_core_error, on_http_error
from entrypoints.http.rate_limits import RateLimits, rate_limit_headers
from entrypoints.http.request_context import request_context
from entrypoints.http.routes import (
    account_page,
    api_keys,
    audit,
    auth,
    galleries,
    health,
    jobs,
    matching,
    people,
    references,
    users,
    workspaces,
)
from entrypoints.http.security_headers import security_headers
from entrypoints.http.slow_bodies import slow_bodies
from entrypoints.settings import Settings

AREAS: Mapping[str, Sequence[HTTPRouteHandler]] = {
    "Matching": (
        matching.verify_face,
        matching.verify_batch,
        matching.search_faces,
        matching.search_batch,
        matching.compare_faces,
        matching.detect_faces,
        matching.embed_faces,
    ),
    "References": (
        references.enrol_references,
        references.enrol_batch,
        references.list_references,
        references.get_reference,
        references.read_image,
        references.delete_reference,
    ),
    "People": (
        people.create_person,
        people.list_people,
        people.get_person,
        people.update_person,
        people.delete_person,
        people.erase_person,
        people.export_person,
        people.merge_people,
        people.unmerge_people,
    ),
    "Galleries": (
        galleries.create_gallery,
        galleries.list_galleries,
        galleries.get_gallery,
        galleries.update_gallery,
        galleries.delete_gallery,
        galleries.migrate_gallery,
        galleries.get_migration,
        galleries.list_left_behind,
        galleries.finish_migration,
    ),
    "API keys": (
        api_keys.create_api_key,
        api_keys.list_api_keys,
        api_keys.get_api_key,
        api_keys.rotate_api_key,
        api_keys.revoke_api_key,
    ),
    "Workspaces": (
        workspaces.list_workspaces,
        workspaces.create_workspace,
        workspaces.get_workspace,
        workspaces.update_workspace,
        workspaces.list_members,
        workspaces.add_member,
        workspaces.change_member,
        workspaces.remove_member,
        workspaces.leave_workspace,
        workspaces.invite_member,
        workspaces.list_invitations,
        workspaces.withdraw_invitation,
    ),
    "Account": (
        auth.register,
        auth.log_in,
        auth.refresh_tokens,
        auth.log_out,
        auth.change_password,
        auth.reset_password,
        auth.show_link,
        auth.accept_invitation,
        auth.show_account,
        auth.list_sessions,
        auth.end_session,
    ),
    "Users": (
        users.create_user,
        users.create_users,
        users.list_users,
        users.get_user,
        users.update_user,
        users.delete_user,
        users.restore_user,
        users.make_password_link,
    ),
    "Jobs": (
        jobs.list_jobs,
        jobs.get_job,
        jobs.cancel_job,
        jobs.watch_job,
    ),
    "Audit": (
        audit.list_audit,
        audit.export_audit,
        audit.verify_audit,
        audit.list_instance_audit,
        audit.export_instance_audit,
        audit.verify_instance_audit,
    ),
}
"""Every route behind the door, as the API pages group them: each names the scope it needs."""

API: Sequence[HTTPRouteHandler] = tuple(handler for handlers in AREAS.values() for handler in handlers)


def make_app(container: AsyncContainer, settings: Settings) -> Litestar:
    """Return the application. It does not own the container: who made it closes it."""
    for handler in API:
        # Routers have tags and guards of their own, but no responses.
        handler.responses = {**(handler.responses or {}), **PROBLEMS}
    handlers: list[ControllerRouterHandler] = [
        # Side by side: Litestar copies a router with all that is in it, once for each that it stands in.
        *(Router("/api/v1", route_handlers=list(area), tags=[name], guards=[guard]) for name, area in AREAS.items()),
        health.live,
        health.ready,
        people.receipts_key,
        account_page.account_page,
        account_page.account_style,
        account_page.account_script,
    ]
    if settings.serves_docs:
        handlers.extend((assets_router(), openapi_document))
    app = Litestar(
        route_handlers=handlers,
        openapi_config=openapi_config(version("facepass")) if settings.serves_docs else None,
        exception_handlers={
            FacepassError: on_core_error,
            HTTPException: on_http_error,
            Exception: on_any_error,
        },
        middleware=[],
        cors_config=cross_origin(settings),
        request_max_body_size=settings.http.max_body_bytes,
        state=State(
            {
                "max_image_bytes": settings.image.max_bytes,
                "rate_limits": RateLimits(container, settings.rate_limits),
            }
        ),
        logging_config=None,
    )
    setup_dishka(container, app)
    app.asgi_handler = _wrapped(app.asgi_handler, settings)
    return app


def _wrapped(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Return the application inside what holds for every call, the outermost last."""
    app = rate_limit_headers(app)
    app = plain_paths(app)
    app = slow_bodies(app, settings)
    app = allowed_hosts(app, settings)
    app = request_context(app)
    app = security_headers(app, settings)
    # Nobody is believed without a setting, not even this machine: whoever names an address gets its limits.
    return _behind_proxies(app, settings.http.trusted_proxies)


def _behind_proxies(app: ASGIApp, trusted: Sequence[str]) -> ASGIApp:
    if not trusted:
        return app
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=list(trusted)))
