from typing import final

from adapters.persistence.connection import SqlConnection
from application.ports.transaction import Transaction


@final
class SqlTransaction(Transaction):
    """A PostgreSQL transaction, READ COMMITTED."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def commit(self) -> None:
        await self._connection.commit()

    async def rollback(self) -> None:
        await self._connection.aclose()
