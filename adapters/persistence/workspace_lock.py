from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import WORKSPACES
from domain.workspace import WorkspaceId


async def locked_workspaces(
    connection: SqlConnection, wanted: Sequence[WorkspaceId] | Select[Any]
) -> Sequence[WorkspaceId]:
    """Lock workspaces until the transaction ends, and return those that are there.

    Whoever changes who is in a workspace, or whether its owners can sign in, holds it, so that nobody decides by what
    another is about to change. Users are locked before workspaces, and one-time links after them: else two transactions
    wait for each other. Not `FOR UPDATE`, which everything that is made in the workspace would wait for.
    """
    found = await connection.execute(
        select(WORKSPACES.c.id)
        .where(WORKSPACES.c.id.in_(wanted))
        # In one order, for the same reason.
        .order_by(WORKSPACES.c.id)
        .with_for_update(key_share=True)
    )
    return [WorkspaceId(one) for one in found.scalars()]
