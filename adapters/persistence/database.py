from dataclasses import dataclass
from typing import Any, Final, Self, final

from sqlalchemy import event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_DRIVER: Final = "postgresql+asyncpg"

_IDLE: Final = 60.0
"""Seconds between two statements of a transaction, past which the server ends it: requests take far less, and an index
cannot be built while a transaction that began before it holds a snapshot."""


@final
@dataclass(frozen=True, slots=True)
class Database:
    """The pools of one PostgreSQL server: for transactions, for single reads, for asking and for hearing."""

    transactions: AsyncEngine
    background: AsyncEngine
    """For transactions too, of work that no client waits for: it must get on while requests wait for its locks."""
    reads: AsyncEngine
    """AUTOCOMMIT: one round trip a query, no BEGIN and no ROLLBACK around it."""
    pings: AsyncEngine
    """One connection, AUTOCOMMIT: where all the others are in use, the server is busy, and not gone."""
    line: AsyncEngine
    """One connection, AUTOCOMMIT, to listen on."""

    @classmethod
    def at(cls, url: str, *, transactions: int = 6, reads: int = 6, timeout: float = 10.0) -> Self:
        """Name the server; nothing is connected yet.

        Args:
            url: `postgresql://user:password@host/database`, with `sslmode` where TLS is wanted.
            transactions: connections for transactions, at most, and as many for those of background work.
            reads: connections for single reads, at most.
            timeout: seconds after which connecting, waiting for a connection and each command fail.
        """
        return cls(
            transactions=engine(url, connections=transactions, timeout=timeout),
            background=engine(url, connections=transactions, timeout=timeout),
            reads=engine(url, connections=reads, timeout=timeout, autocommit=True),
            pings=engine(url, connections=1, timeout=timeout, autocommit=True),
            line=engine(url, connections=1, timeout=timeout, autocommit=True),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self.transactions.dispose()
        await self.background.dispose()
        await self.reads.dispose()
        await self.pings.dispose()
        await self.line.dispose()


def engine(url: str, *, connections: int, timeout: float, autocommit: bool = False) -> AsyncEngine:
    """Make a pool of up to `connections` connections; `timeout` in seconds is that of `Database.at`.

    With `autocommit` each statement is its own transaction.
    """
    address = make_url(url).set(drivername=_DRIVER)
    if sslmode := address.query.get("sslmode"):  # libpq's word, which every address in the wild has
        address = address.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    made = create_async_engine(
        address,
        # Parameters are personal data, and errors end in logs.
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout,
        pool_use_lifo=True,
        connect_args={
            "timeout": timeout,
            "command_timeout": timeout,
            "server_settings": {
                "application_name": "facepass",
                "timezone": "UTC",
                "idle_in_transaction_session_timeout": f"{max(_IDLE, timeout) * 1000:.0f}",
            },
        },
        **({"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if autocommit else {}),
    )
    event.listen(made.sync_engine, "checkout", _refuse_closed)
    return made


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:  # noqa: ANN401 - SQLAlchemy's own type
    # The driver notices by itself when the server ends a connection: asking it costs nothing, where a ping before
    # each use costs a round trip. The pool then replaces all connections that are as old.
    if connection.driver_connection.is_closed():
        raise DisconnectionError
