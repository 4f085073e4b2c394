from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dishka import Scope
from sqlalchemy import text

from adapters.persistence.database import Database
from application.ports.transaction import Transaction
from application.use_cases.idempotency import REMEMBERED_FOR, Once, RememberedAnswers
from application.use_cases.people.create_person import CreatePerson
from application.use_cases.people.delete_person import DeletePerson
from domain.errors import CannotOpen, IdempotencyKeyReused, PersonNotFound
from domain.person import PersonId
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.with_jobs import WithJobs

CALL: Once[str] = Once(key="k#0", fingerprint=b"body", call=b"call", encode=str.encode, decode=bytes.decode)


class At:
    """A clock that stands."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now


@pytest.fixture
async def node(database_url: str, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with in_process(settings_for(database_url, tmp_path, tmp_path / "models"), WithJobs(), work=False) as one:
        yield one


async def somebody(node: InProcess) -> PersonId:
    async with node.container(scope=Scope.REQUEST) as unit:
        create = await unit.get(CreatePerson)
        made = await create(workspace=node.workspace, gallery="default", external_id=None, metadata={})
        return made.id


async def keep(node: InProcess, person: PersonId | None, once: Once[str] = CALL) -> bool:
    async with node.container(scope=Scope.REQUEST) as unit:
        kept = await (await unit.get(RememberedAnswers)).keep(node.workspace, once, "made", person=person)
        transaction = await unit.get(Transaction)
        await (transaction.commit() if kept else transaction.rollback())
        return kept


async def delete(node: InProcess, person: PersonId) -> None:
    async with node.container(scope=Scope.REQUEST) as unit:
        await (await unit.get(DeletePerson))(workspace=node.workspace, gallery="default", person=person)


async def earlier(node: InProcess, once: Once[str] = CALL, *, after: timedelta = timedelta()) -> str | None:
    async with node.container(scope=Scope.REQUEST) as unit:
        remembered = replace(await unit.get(RememberedAnswers), clock=At(datetime.now(UTC) + after))
        return await remembered.earlier(node.workspace, once)


async def test_a_repeat_that_was_under_way_while_the_person_was_made_and_deleted_makes_nobody(node: InProcess) -> None:
    assert await earlier(node) is None  # both have looked
    first = await somebody(node)
    assert await keep(node, first)
    await delete(node, first)
    assert not await keep(node, await somebody(node))
    async with node.container(scope=Scope.REQUEST) as unit:
        with pytest.raises(PersonNotFound):
            await (await unit.get(RememberedAnswers)).committed(node.workspace, CALL)


async def test_that_it_was_done_is_known_as_long_as_the_answer_would_be(node: InProcess) -> None:
    person = await somebody(node)
    await keep(node, person)
    assert await earlier(node) == "made"
    await delete(node, person)
    with pytest.raises(PersonNotFound):
        await earlier(node, after=REMEMBERED_FOR - timedelta(minutes=1))
    assert await earlier(node, after=REMEMBERED_FOR) is None


async def test_the_key_is_good_for_no_other_call_then(node: InProcess) -> None:
    person = await somebody(node)
    await keep(node, person)
    await delete(node, person)
    with pytest.raises(IdempotencyKeyReused):
        await earlier(node, replace(CALL, call=b"another"))


async def test_what_is_about_nobody_is_remembered_alone(node: InProcess) -> None:
    assert [await keep(node, None), await keep(node, None)] == [True, False]
    assert await earlier(node) == "made"


async def test_an_answer_opens_in_no_other_row(node: InProcess, database: Database) -> None:
    mine: Once[str] = replace(CALL, key="mine#0", fingerprint=b"mine")
    assert await keep(node, None, mine)
    assert await keep(node, None)
    await write(
        database,
        "UPDATE answers AS a SET data_key_id = theirs.data_key_id, wrapped = theirs.wrapped, body = theirs.body"
        " FROM answers AS theirs WHERE a.fingerprint = 'mine' AND theirs.fingerprint <> 'mine'",
    )
    with pytest.raises(CannotOpen):
        await earlier(node, mine)
    assert await earlier(node) == "made"


async def test_an_answer_opens_for_no_other_call_that_its_row_was_given_to(node: InProcess, database: Database) -> None:
    assert await keep(node, None)
    await write(database, "UPDATE answers SET fingerprint = 'mine'")
    with pytest.raises(CannotOpen):
        await earlier(node, replace(CALL, fingerprint=b"mine"))


async def write(database: Database, statement: str) -> None:
    """Do what somebody can who writes to the database."""
    async with database.transactions.begin() as connection:
        await connection.execute(text(statement))
