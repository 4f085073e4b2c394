import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Final, final

import structlog
from asyncpg import InterfaceError
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import translated
from application.ports.notices import Listener, Notices, Topic
from domain.errors import PortError

CHANNEL: Final = "facepass_notices"
LINE: Final = "facepass notices"
"""What the listening connection calls itself, for whoever looks at the server's list of connections."""

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 5.0
"""Seconds before a line that was cut is put up again: doubled each time."""

ALIVE_EVERY: Final = 5.0
"""Seconds of silence after which the server is asked whether it is there: a network may be gone without a word."""

log = structlog.get_logger("facepass.notices")


@final
class SqlListener(Listener):
    """LISTEN, on a connection of its own; nothing is heard before `begin`."""

    def __init__(self, line: AsyncEngine, *, alive_every: float = ALIVE_EVERY) -> None:
        self._line = line
        self._alive_every = alive_every
        self._forget: defaultdict[Topic, list[Callable[[], None]]] = defaultdict(list)
        self._listening = False
        self._task: asyncio.Task[None] | None = None

    @property
    def listening(self) -> bool:
        return self._listening

    def on(self, topic: Topic, forget: Callable[[], None]) -> None:
        self._forget[topic].append(forget)

    def begin(self) -> None:
        """Listen from now on, beside everything else, until `aclose`; again and again where the line is cut."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen())

    def heard(self, topic: Topic) -> None:
        """Take a notice, whichever way it came."""
        for forget in self._forget[topic]:
            forget()

    async def aclose(self) -> None:
        """Listen no longer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                with translated():
                    async with self._line.connect() as connection:
                        wait = FIRST_WAIT
                        await self._hear(connection)
            except PortError as error:
                log.warning("notices_cut", reason=error.message)
            except Exception as error:  # noqa: BLE001 - whatever comes out of it, the line is put up again
                # Neither message nor traceback: both can hold addresses.
                log.warning("notices_cut", error=type(error).__qualname__)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _hear(self, connection: AsyncConnection) -> None:
        """Listen until the line is cut."""
        driver = (await connection.get_raw_connection()).driver_connection
        if driver is None:
            raise InterfaceError("the connection was closed")
        cut = asyncio.Event()

        def is_cut(_: object) -> None:
            self._stand(listening=False)
            cut.set()

        driver.add_termination_listener(is_cut)
        try:
            await driver.execute(f"SET application_name = '{LINE}'")
            await driver.add_listener(CHANNEL, self._notified)
            self._stand(listening=True)
            while not cut.is_set():
                try:
                    async with asyncio.timeout(self._alive_every):
                        await cut.wait()
                except TimeoutError:
                    await driver.execute("SELECT 1", timeout=self._alive_every)
        finally:
            self._stand(listening=False)
            driver.remove_termination_listener(is_cut)
            # Never back to the pool: it still listens.
            await connection.invalidate()

    def _stand(self, *, listening: bool) -> None:
        # Forgotten before and after: what was said while nobody listened is not said again.
        self._listening = False
        for topic in Topic:
            self.heard(topic)
        self._listening = listening

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload in set(Topic):
            self.heard(Topic(str(payload)))


@final
class SqlNotices(Notices):
    """NOTIFY in the request's transaction: PostgreSQL delivers it with the commit."""

    def __init__(self, connection: SqlConnection, listener: SqlListener) -> None:
        self._connection = connection
        self._listener = listener

    async def tell(self, topic: Topic) -> None:
        await self._connection.execute(select(func.pg_notify(CHANNEL, topic.value)))
        # This process does not wait for the word to come round: its next call must find it done.
        self._connection.after_commit(partial(self._listener.heard, topic))
