from typing import final

from adapters.persistence.audit_trail import SqlAuditTrail
from adapters.persistence.connection import SqlConnection
from application.ports.transaction import Transaction


@final
class SqlTransaction(Transaction):
    """A PostgreSQL transaction, READ COMMITTED; what was noted for the audit log is chained at its end."""

    def __init__(self, connection: SqlConnection, trail: SqlAuditTrail) -> None:
        self._connection = connection
        self._trail = trail

    async def commit(self) -> None:
        await self._trail.write()
        await self._connection.commit()

    async def rollback(self) -> None:
        self._trail.forget()
        await self._connection.aclose()
