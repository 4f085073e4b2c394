from collections.abc import Sequence
from typing import Any, Final, final

from sqlalchemy import ColumnElement, Select, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.errors import translated
from adapters.persistence.tables import AUDIT_ENTRIES, INSTALLATION, WORKSPACES
from application.ports.audit import ChainBeginnings
from domain.audit import INSTANCE, AuditAction
from domain.workspace import WorkspaceId

_ENTRY: Final = AUDIT_ENTRIES.c


@final
class SqlChainBeginnings(ChainBeginnings):
    """Asks PostgreSQL over AUTOCOMMIT connections.

    The audit log came with the ring of keys, so an installation has had it from its first start unless its hashing
    secret is the master key that it was first started with. Nobody without that secret can write its fingerprint into
    the database; and of an older installation's workspaces, those that the instance's chain says were made are not
    older than it.
    """

    def __init__(self, engine: AsyncEngine, *, first_master: bytes) -> None:
        """`first_master` is the fingerprint that a master key has which is the hashing secret itself."""
        self._engine = engine
        self._younger: Final = ~exists().where(INSTALLATION.c.master_key == first_master)
        """Whether all workspaces are younger than the audit log."""

    async def required(self, workspace: WorkspaceId) -> bool:
        told = exists().where(_says_made(INSTANCE), _ENTRY.subject_id == workspace)
        (found,) = await self._scalars(select(or_(self._younger, told)))
        return bool(found)

    async def untold(self) -> Sequence[WorkspaceId]:
        told = exists().where(_says_made(INSTANCE), _ENTRY.subject_id == WORKSPACES.c.id)
        begun = exists().where(_says_made(WORKSPACES.c.id), _ENTRY.subject_id == WORKSPACES.c.id, _ENTRY.number == 1)
        missed = select(WORKSPACES.c.id).where(~told, or_(self._younger, begun)).order_by(WORKSPACES.c.id)
        return [WorkspaceId(one) for one in await self._scalars(missed)]

    async def _scalars(self, asked: Select[Any]) -> Sequence[Any]:
        with translated():
            async with self._engine.connect() as connection:
                found: Sequence[Any] = (await connection.execute(asked)).scalars().all()
                return found


def _says_made(chain: object) -> ColumnElement[bool]:
    return (_ENTRY.workspace_id == chain) & (_ENTRY.action == AuditAction.WORKSPACE_CREATED)
