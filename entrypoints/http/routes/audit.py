"""/audit, and /admin/audit for what belongs to no workspace."""

from dataclasses import replace
from datetime import datetime
from inspect import getdoc
from typing import Any
from uuid import UUID

from dishka.integrations.litestar import FromDishka, inject
from litestar import Request, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery
from litestar.response import Stream

from application.ports.audit import AuditFilter
from application.use_cases.audit.export_audit import ExportAudit
from application.use_cases.audit.read_audit import ReadAudit
from application.use_cases.audit.verify_audit import VerifyAudit
from domain.audit import INSTANCE, AuditAction
from domain.errors import InvalidValue
from domain.permission import Permission
from domain.workspace import WorkspaceId
from entrypoints.http.access import while_allowed, workspace_of
from entrypoints.http.audit_shapes import (
    AuditListShape,
    AuditReportShape,
    head_of,
    to_audit_entry,
    to_audit_report,
)
from entrypoints.http.cursors import Cursors
from entrypoints.http.names import page_size

LINES = "application/x-ndjson"


def asked_of_any(
    action: FromQuery[str | None] = None,
    actor: FromQuery[UUID | None] = None,
    subject: FromQuery[UUID | None] = None,
    outcome: FromQuery[str | None] = None,
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
) -> AuditFilter:
    """Return what is asked for. Whom and what it names may be gone: no id is looked up."""
    return AuditFilter(
        action=None if action is None else action_named(action),
        actor=actor,
        subject=subject,
        outcome=_code(outcome),
        since=_aware(since, "since"),
        until=_aware(until, "until"),
    )


def asked_of_a_workspace(asked: NamedDependency[AuditFilter], gallery: FromQuery[UUID | None] = None) -> AuditFilter:
    """Return the same, of one gallery."""
    return replace(asked, gallery=gallery)


OF_A_WORKSPACE = {
    "asked": Provide(asked_of_any, sync_to_thread=False),
    "only": Provide(asked_of_a_workspace, sync_to_thread=False),
}
OF_THE_INSTANCE = {"only": Provide(asked_of_any, sync_to_thread=False)}


@get(
    "/audit",
    needs=Permission.AUDIT,
    dependencies=OF_A_WORKSPACE,
    description=getdoc(ReadAudit),
    summary="List audit entries",
)
@inject
async def list_audit(
    request: Request[Any, Any, Any],
    read: FromDishka[ReadAudit],
    cursors: FromDishka[Cursors],
    only: NamedDependency[AuditFilter],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> AuditListShape:
    """List audit entries."""
    return await _page(workspace_of(request), read, cursors, limit, cursor, only)


@get(
    "/audit/export",
    needs=Permission.AUDIT,
    dependencies=OF_A_WORKSPACE,
    media_type=LINES,
    description=getdoc(ExportAudit),
    summary="Export",
)
@inject
async def export_audit(
    request: Request[Any, Any, Any],
    export: FromDishka[ExportAudit],
    only: NamedDependency[AuditFilter],
) -> Stream:
    """Export."""
    return await _exported(request, workspace_of(request), export, only)


@get("/audit/verify", needs=Permission.AUDIT, description=getdoc(VerifyAudit), summary="Verify the audit log")
@inject
async def verify_audit(
    request: Request[Any, Any, Any], verify: FromDishka[VerifyAudit], head: FromQuery[str | None] = None
) -> AuditReportShape:
    """Verify the audit log."""
    return to_audit_report(await verify(workspace=workspace_of(request), known=head_of(head)))


@get(
    "/admin/audit",
    needs=Permission.ADMINISTER,
    dependencies=OF_THE_INSTANCE,
    description=getdoc(ReadAudit),
    summary="List the instance's entries",
)
@inject
async def list_instance_audit(
    read: FromDishka[ReadAudit],
    cursors: FromDishka[Cursors],
    only: NamedDependency[AuditFilter],
    limit: FromQuery[int] = 50,
    cursor: FromQuery[str | None] = None,
) -> AuditListShape:
    """List the instance's entries."""
    return await _page(INSTANCE, read, cursors, limit, cursor, only)


@get(
    "/admin/audit/export",
    needs=Permission.ADMINISTER,
    dependencies=OF_THE_INSTANCE,
    media_type=LINES,
    description=getdoc(ExportAudit),
    summary="Export the instance's entries",
)
@inject
async def export_instance_audit(
    request: Request[Any, Any, Any],
    export: FromDishka[ExportAudit],
    only: NamedDependency[AuditFilter],
) -> Stream:
    """Export the instance's entries."""
    return await _exported(request, INSTANCE, export, only)


@get(
    "/admin/audit/verify",
    needs=Permission.ADMINISTER,
    description=getdoc(VerifyAudit),
    summary="Verify the instance's audit log",
)
@inject
async def verify_instance_audit(
    verify: FromDishka[VerifyAudit], head: FromQuery[str | None] = None
) -> AuditReportShape:
    """Verify the instance's audit log."""
    return to_audit_report(await verify(workspace=INSTANCE, known=head_of(head)))


async def _page(
    workspace: WorkspaceId, read: ReadAudit, cursors: Cursors, limit: int, cursor: str | None, only: AuditFilter
) -> AuditListShape:
    filters = ("audit", workspace, only)
    behind = cursors.read(cursor, *filters)
    page = await read(
        workspace=workspace, limit=page_size(limit), before=None if behind is None else behind.int, only=only
    )
    return AuditListShape(
        items=[to_audit_entry(entry) for entry in page.items],
        next_cursor=cursors.written(None if page.before is None else UUID(int=page.before), *filters),
    )


async def _exported(
    request: Request[Any, Any, Any], workspace: WorkspaceId, export: ExportAudit, only: AuditFilter
) -> Stream:
    return Stream(
        while_allowed(request, await export(workspace=workspace, only=only)),
        media_type=LINES,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": 'attachment; filename="audit.jsonl"',
            "X-Accel-Buffering": "no",
        },
    )


def _code(outcome: str | None) -> str | None:
    if outcome is not None and not outcome.isprintable():
        raise InvalidValue("outcome is `ok` or the code of a problem", field="outcome")
    return outcome


def action_named(name: str) -> AuditAction:
    """Return the action of this name. Raises `InvalidValue`."""
    try:
        return AuditAction(name)
    except ValueError as error:
        raise InvalidValue(f"action is one of {', '.join(AuditAction)}", field="action") from error


def _aware(moment: datetime | None, field: str) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise InvalidValue(f"{field} needs a time zone: 2026-03-01T12:00:00Z", field=field)
    return moment
