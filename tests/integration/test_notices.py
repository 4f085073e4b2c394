import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text

from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.notices import LINE, SqlListener, SqlNotices
from application.ports.notices import Topic
from tests.conftest import execute

SOON = 20.0
"""Seconds for what takes milliseconds."""


async def becomes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not true():  # noqa: ASYNC110 - what is awaited has no event to set
            await asyncio.sleep(0.005)


class Node:
    """A process of the installation: what it heard, and how it tells."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.listener = SqlListener(database.line, alive_every=0.2)
        self.heard: list[Topic] = []
        for topic in Topic:
            self.listener.on(topic, lambda topic=topic: self.heard.append(topic))  # type: ignore[misc]  # bound at once

    async def begin(self) -> None:
        self.listener.begin()
        await becomes(lambda: self.listener.listening)
        self.heard.clear()

    def unit(self) -> tuple[SqlConnection, SqlNotices]:
        connection = SqlConnection(self.database.transactions)
        return connection, SqlNotices(connection, self.listener)


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[tuple[Node, Node]]:
    """Two processes over one database."""
    both = tuple(Node(Database.at(database_url, transactions=2, reads=1)) for _ in range(2))
    for node in both:
        await node.begin()
    yield both[0], both[1]
    for node in both:
        await node.listener.aclose()
        await node.database.aclose()


async def test_a_committed_notice_is_heard_by_all_and_here_at_once(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    connection, notices = here.unit()
    await notices.tell(Topic.CREDENTIALS)
    assert here.heard == []
    await connection.commit()
    # Not when the word has come round: the next call here must find it done.
    assert Topic.CREDENTIALS in here.heard
    await becomes(lambda: there.heard == [Topic.CREDENTIALS])


async def test_what_is_rolled_back_is_not_told(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    connection, notices = here.unit()
    await notices.tell(Topic.CREDENTIALS)
    await connection.aclose()
    connection, notices = here.unit()
    await notices.tell(Topic.KEY_RING)
    await connection.commit()
    await becomes(lambda: Topic.KEY_RING in there.heard)
    assert Topic.CREDENTIALS not in [*here.heard, *there.heard]


async def test_a_line_that_is_cut_is_put_up_again_and_everything_forgotten(
    nodes: tuple[Node, Node], database_url: str
) -> None:
    _, there = nodes
    stood: list[bool] = []
    there.listener.on(Topic.CREDENTIALS, lambda: stood.append(there.listener.listening))
    await execute(
        database_url,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{LINE}'",  # noqa: S608 - a name of ours
    )
    await becomes(lambda: stood != [])
    # Whoever is told to forget when the line is cut must find it cut.
    assert stood[0] is False
    await becomes(lambda: there.listener.listening)
    assert set(there.heard) == set(Topic)
    there.heard.clear()
    await execute(database_url, "SELECT pg_notify('facepass_notices', 'credentials')")
    await becomes(lambda: there.heard == [Topic.CREDENTIALS])


async def test_a_notice_that_nobody_knows_is_not_heard(nodes: tuple[Node, Node], database_url: str) -> None:
    here, _ = nodes
    await execute(database_url, "SELECT pg_notify('facepass_notices', 'of a later version')")
    await execute(database_url, "SELECT pg_notify('facepass_notices', 'credentials')")
    await becomes(lambda: here.heard != [])
    assert here.heard == [Topic.CREDENTIALS]


async def test_a_silent_line_stays_up(nodes: tuple[Node, Node]) -> None:
    here, _ = nodes
    await asyncio.sleep(0.7)  # several times `alive_every`
    assert here.listener.listening
    assert here.heard == []


async def test_a_listener_whose_server_is_away_hears_nothing_and_ends(database: Database) -> None:
    gone = Database.at("postgresql://nobody@127.0.0.1:1/none", transactions=1, reads=1)
    listener = SqlListener(gone.line)
    listener.begin()
    await asyncio.sleep(0.05)
    assert not listener.listening
    await listener.aclose()
    await gone.aclose()
    async with database.reads.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
