from collections.abc import Collection, Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, LargeBinary, Row, Select, Text, any_, cast, literal, select, update

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import stretch
from adapters.persistence.tables import ERASURES, GALLERY_MOVES, JOBS
from application.ports.reports import Report, ReportPlace, Reports
from domain.job import JobWork
from domain.person import PersonId
from domain.workspace import WorkspaceId

_JOB, _MOVE = JOBS.c, GALLERY_MOVES.c


@final
class SqlReports(Reports):
    """Results of jobs and reports of moves in PostgreSQL.

    A batch's result, of which there are many, is searched as text for people: no reference stands there without the
    person that it was enrolled for.
    """

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def naming(self, workspace: WorkspaceId, people: Collection[PersonId]) -> Sequence[Report]:
        jobs = _jobs(workspace).where(
            _JOB.finished_at.is_(None) | (_JOB.kind != JobWork.BULK_ENROLMENT) | _names(_JOB.result, people)
        )
        # All of the workspace's: few, and a report may be about to be written.
        moves = _moves(workspace)
        found = [
            *await self._connection.execute(jobs.order_by(_JOB.id).with_for_update()),
            *await self._connection.execute(moves.order_by(_MOVE.gallery_id).with_for_update()),
        ]
        return [_to_report(row) for row in found if row.content is not None]

    async def save(self, workspace: WorkspaceId, report: Report) -> None:
        statement = (
            update(JOBS).where(_JOB.workspace_id == workspace, _JOB.id == report.id).values(result=report.content)
            if report.place is ReportPlace.JOB
            else update(GALLERY_MOVES)
            .where(_MOVE.workspace_id == workspace, _MOVE.gallery_id == report.id)
            .values(report=report.content)
        )
        await self._connection.execute(statement)

    async def page(self, workspace: WorkspaceId, *, after: UUID | None, limit: int) -> Sequence[Report]:
        every = (
            _jobs(workspace)
            .where(_JOB.result.is_not(None))
            .union_all(_moves(workspace).where(_MOVE.report.is_not(None)))
            .subquery()
        )
        found = await self._connection.execute(stretch(select(every), every.c.id, limit=limit - 1, after=after))
        return [_to_report(row) for row in found]

    async def erased(self, workspace: WorkspaceId, digests: Collection[bytes]) -> frozenset[bytes]:
        wanted = literal(list(digests), ARRAY(LargeBinary))
        found = await self._connection.execute(
            select(ERASURES.c.digests).where(
                ERASURES.c.workspace_id == workspace, ERASURES.c.digests.bool_op("&&")(wanted)
            )
        )
        return frozenset(bytes(one) for digests_ in found.scalars() for one in digests_) & frozenset(digests)


def _jobs(workspace: WorkspaceId) -> Select[Any]:
    place = literal(ReportPlace.JOB.value).label("place")
    return select(_JOB.id, _JOB.result.label("content"), place).where(_JOB.workspace_id == workspace)


def _moves(workspace: WorkspaceId) -> Select[Any]:
    place = literal(ReportPlace.MOVE.value).label("place")
    return select(_MOVE.gallery_id.label("id"), _MOVE.report.label("content"), place).where(
        _MOVE.workspace_id == workspace
    )


def _names(content: ColumnElement[Any], people: Collection[PersonId]) -> ColumnElement[bool]:
    patterns = literal([f"%{one}%" for one in people], ARRAY(Text))
    return cast(content, Text).op("LIKE", is_comparison=True)(any_(patterns))


def _to_report(row: Row[Any]) -> Report:
    return Report(place=ReportPlace(row.place), id=row.id, content=row.content)
