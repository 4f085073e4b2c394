from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from adapters.persistence.errors import WRITTEN, Facts, translated


@final
class SqlConnection:
    """The one connection that all repositories of a request share, taken from the pool with the first query.

    It goes back when the transaction ends, so that a request which computes for a while keeps nobody waiting.
    After an error from the database, `rollback` is all it can do.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._after_commit: list[Callable[[], None]] = []

    async def execute(
        self,
        statement: Executable,
        parameters: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        *,
        facts: Facts = WRITTEN,
    ) -> CursorResult[Any]:
        """Run a statement; several mappings run it once each.

        Raises `PortUnavailable`, and what `facts` says of a violated constraint.
        """
        with translated(facts):
            if self._connection is None:
                self._connection = await self._engine.connect()
            return await self._connection.execute(statement, parameters)

    def after_commit(self, then: Callable[[], None]) -> None:
        """Call `then` once the running transaction is committed; never, where it is rolled back."""
        self._after_commit.append(then)

    async def commit(self) -> None:
        """Commit, where a query came before. Raises `PortUnavailable`."""
        connection, self._connection = self._connection, None
        then, self._after_commit = self._after_commit, []
        if connection is not None:
            with translated():
                try:
                    await connection.commit()
                finally:
                    await connection.close()
        for call in then:
            call()

    async def aclose(self) -> None:
        """Roll back what was not committed. Raises `PortUnavailable`."""
        self._after_commit.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            with translated():
                await connection.close()
