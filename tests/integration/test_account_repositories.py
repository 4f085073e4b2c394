import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Text, cast, literal_column, select
from sqlalchemy import table as table_named

from adapters.persistence.account_purge import SqlAccountPurge
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.link_repository import SqlLinkRepository
from adapters.persistence.login_failures import SqlLoginFailures
from adapters.persistence.login_record import SqlLoginRecord
from adapters.persistence.membership_repository import SqlMembershipRepository
from adapters.persistence.session_repository import SqlSessionRepository
from adapters.persistence.signing_keys import SqlSigningKeyRecord, SqlSigningKeys
from adapters.persistence.transaction import SqlTransaction
from adapters.persistence.user_repository import SqlUserRepository
from adapters.persistence.workspace_repository import SqlWorkspaceRepository
from adapters.system.id_generator import UuidV7Generator
from application.ports.access_tokens import SigningKey, SigningKeyId
from application.ports.accounts import Link, LinkPurpose, UserFilter
from domain.errors import (
    EmailTaken,
    LastAdministrator,
    LastOwner,
    LinkInvalid,
    UserNotFound,
    VersionMismatch,
    WorkspaceNotFound,
)
from domain.permission import Role
from domain.user import FREE_FAILURES, LinkId, Session, SessionId, User, UserId, lock_after
from domain.workspace import Membership, Workspace, WorkspaceId
from tests.locks import somebody_waits
from tests.trail import CIPHER, KEYED_HASH, trail

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
IDS = UuidV7Generator()


class Unit:
    """One request: its repositories and their transaction."""

    def __init__(self, database: Database) -> None:
        self.connection = SqlConnection(database.transactions)
        self.transaction = SqlTransaction(self.connection, trail(self.connection))
        self.users = SqlUserRepository(self.connection, CIPHER, KEYED_HASH)
        self.sessions = SqlSessionRepository(self.connection, CIPHER)
        self.links = SqlLinkRepository(self.connection, KEYED_HASH)
        self.workspaces = SqlWorkspaceRepository(self.connection)
        self.memberships = SqlMembershipRepository(self.connection)
        self.failures = SqlLoginFailures(self.connection, KEYED_HASH)
        self.logins = SqlLoginRecord(self.connection)
        self.keys = SqlSigningKeys(self.connection)
        self.purge = SqlAccountPurge(self.connection)


Begin = Callable[[], "asynccontextmanager[Unit]"]


@pytest.fixture
def begin(database: Database) -> Begin:
    @asynccontextmanager
    async def unit() -> AsyncIterator[Unit]:
        begun = Unit(database)
        try:
            yield begun
        finally:
            await begun.connection.aclose()

    return unit


def a_user(email: str = "ada@example.org", *, administrator: bool = False) -> User:
    return User(
        id=UserId(IDS.new()),
        email=email,
        name="Ada Lovelace",
        administrator=administrator,
        has_password=True,
        created_at=NOW,
        updated_at=NOW,
        version=1,
    )


async def kept(begin: Begin, user: User) -> User:
    async with begin() as unit:
        await unit.users.add(user, password_hash="hash" if user.has_password else None)
        await unit.transaction.commit()
    return user


def a_session(user: User) -> Session:
    return Session(
        id=SessionId(IDS.new()),
        user=user.id,
        created_at=NOW,
        last_used_at=NOW,
        expires_at=NOW + timedelta(days=30),
        agent="Firefox 150 on Linux",
    )


async def kept_session(begin: Begin, session: Session, digest: bytes) -> Session:
    async with begin() as unit:
        await unit.sessions.add(session, refresh_digest=digest)
        await unit.transaction.commit()
    return session


async def test_a_user_is_found_by_id_and_by_address_in_any_case(begin: Begin) -> None:
    user = await kept(begin, a_user())
    async with begin() as unit:
        assert await unit.users.get(user.id) == user
        assert await unit.users.get("ADA@Example.ORG", lock=True) == user
        assert await unit.users.password_hash(user.id) == "hash"
        with pytest.raises(UserNotFound):
            await unit.users.get("eve@example.org")
        with pytest.raises(UserNotFound):
            await unit.users.get(UserId(IDS.new()))


async def test_an_address_is_one_users_in_any_case_and_the_transaction_goes_on(begin: Begin) -> None:
    await kept(begin, a_user())
    other = a_user("bea@example.org")
    async with begin() as unit:
        with pytest.raises(EmailTaken):
            await unit.users.add(a_user("Ada@EXAMPLE.org"), password_hash=None)
        await unit.users.add(other, password_hash=None)
        await unit.transaction.commit()
    async with begin() as unit:
        with pytest.raises(EmailTaken):
            await unit.users.save(replace(other, email="ADA@example.org", version=2))
        assert (await unit.users.get(other.id)).email == "bea@example.org"


async def test_neither_names_nor_addresses_stand_in_the_database(begin: Begin, database: Database) -> None:
    user = await kept(begin, a_user())
    await kept_session(begin, a_session(user), b"digest")
    async with database.reads.connect() as connection:
        for table in ("users", "sessions"):
            for row in await connection.execute(
                select(cast(literal_column(table), Text)).select_from(table_named(table))
            ):
                for told in ("ada@", "lovelace", "firefox"):
                    assert told not in row[0].lower()
                    assert told.encode().hex() not in row[0].lower()


async def test_a_change_is_made_to_the_version_that_was_seen(begin: Begin) -> None:
    user = await kept(begin, a_user())
    changed = replace(user, name="Countess", email="countess@example.org", version=2, has_password=True)
    async with begin() as unit:
        await unit.users.save(changed, password_hash="another")
        await unit.transaction.commit()
    async with begin() as unit:
        assert await unit.users.get("countess@example.org") == changed
        assert await unit.users.password_hash(user.id) == "another"
        with pytest.raises(VersionMismatch):
            await unit.users.save(replace(user, version=2))
    async with begin() as unit:
        with pytest.raises(UserNotFound):
            await unit.users.save(replace(user, id=UserId(IDS.new()), version=2))


async def test_the_last_administrator_is_neither_deleted_nor_demoted(begin: Begin) -> None:
    one = await kept(begin, a_user("one@example.org", administrator=True))
    await kept(begin, replace(a_user("gone@example.org", administrator=True), deleted_at=NOW))
    for change in (replace(one, administrator=False, version=2), replace(one, deleted_at=NOW, version=2)):
        async with begin() as unit:
            with pytest.raises(LastAdministrator):
                await unit.users.save(change)
    async with begin() as unit:
        await unit.users.save(replace(one, name="Still one", version=2))


async def test_two_administrators_who_are_demoted_at_one_moment_leave_one(begin: Begin) -> None:
    two = [await kept(begin, a_user(f"{name}@example.org", administrator=True)) for name in ("one", "two")]

    async def demoted(user: User) -> bool:
        async with begin() as unit:
            try:
                await unit.users.save(replace(user, administrator=False, version=2))
            except LastAdministrator:
                return False
            await asyncio.sleep(0.05)
            await unit.transaction.commit()
            return True

    assert sorted(await asyncio.gather(*map(demoted, two))) == [False, True]


def a_membership(workspace: WorkspaceId, user: User, role: Role) -> Membership:
    return Membership(workspace=workspace, user=user.id, role=role, created_at=NOW)


async def owned(begin: Begin, *owners: User) -> WorkspaceId:
    workspace = Workspace(id=WorkspaceId(IDS.new()), name=uuid4().hex, created_at=NOW)
    async with begin() as unit:
        await unit.workspaces.add(workspace)
        for owner in owners:
            await unit.memberships.add(a_membership(workspace.id, owner, Role.OWNER))
        await unit.transaction.commit()
    return workspace.id


async def test_an_only_owner_who_is_deleted_while_a_member_is_added_leaves_no_workspace_without_one(
    begin: Begin, database: Database
) -> None:
    owner, other = [await kept(begin, a_user(f"{name}@example.org")) for name in ("one", "two")]
    workspace = await owned(begin, owner)
    viewer = a_membership(workspace, other, Role.VIEWER)
    gone = replace(owner, deleted_at=NOW, version=2)
    async with begin() as adding, begin() as deleting, asyncio.TaskGroup() as tasks:
        await adding.memberships.add(viewer)
        deletion = tasks.create_task(refused_by(deleting.users.save(gone), LastOwner))
        await somebody_waits(database)
        await adding.transaction.commit()
    assert deletion.result()
    async with begin() as unit:
        await unit.memberships.remove(workspace, other.id, was=Role.VIEWER)
        await unit.transaction.commit()
    async with begin() as deleting, begin() as adding, asyncio.TaskGroup() as tasks:
        await deleting.users.save(gone)
        addition = tasks.create_task(refused_by(adding.memberships.add(viewer), LastOwner))
        await somebody_waits(database)
        await deleting.transaction.commit()
    assert addition.result()
    async with begin() as unit:
        assert (await unit.memberships.page(workspace, limit=9, after=None)).items == (
            a_membership(workspace, owner, Role.OWNER),
        )


async def refused_by(work: Coroutine[Any, Any, None], error: type[Exception]) -> bool:
    try:
        await work
    except error:
        return True
    return False


async def test_a_workspace_that_nobody_owns_takes_members_and_one_whose_owners_are_gone_an_owner(begin: Begin) -> None:
    gone = await kept(begin, replace(a_user("gone@example.org"), deleted_at=NOW))
    user = await kept(begin, a_user())
    unowned, left = await owned(begin), await owned(begin, gone)
    async with begin() as unit:
        await unit.memberships.add(a_membership(unowned, user, Role.VIEWER))
        with pytest.raises(LastOwner):
            await unit.memberships.add(a_membership(left, user, Role.ADMIN))
        await unit.memberships.add(a_membership(left, user, Role.OWNER))
        with pytest.raises(WorkspaceNotFound):
            await unit.memberships.add(a_membership(WorkspaceId(IDS.new()), user, Role.VIEWER))


async def test_users_are_listed_by_page_and_filter(begin: Begin) -> None:
    users = [await kept(begin, a_user(f"user{n}@example.org", administrator=n == 0)) for n in range(3)]
    gone = await kept(begin, replace(a_user("gone@example.org"), deleted_at=NOW))
    async with begin() as unit:
        first = await unit.users.page(limit=2, after=None, only=UserFilter())
        assert (list(first.items), first.next_after) == (users[:2], users[1].id)
        rest = await unit.users.page(limit=2, after=first.next_after, only=UserFilter())
        assert (list(rest.items), rest.next_after) == (users[2:], None)

        async def found(only: UserFilter) -> list[User]:
            return list((await unit.users.page(limit=9, after=None, only=only)).items)

        assert await found(UserFilter(deleted=None)) == [*users, gone]
        assert await found(UserFilter(deleted=True)) == [gone]
        assert await found(UserFilter(administrator=True)) == users[:1]
        assert await found(UserFilter(administrator=False)) == users[1:]
        assert await found(UserFilter(email="USER2@example.org")) == users[2:]


async def test_a_login_is_kept_without_another_version(begin: Begin) -> None:
    user = await kept(begin, a_user())
    async with begin() as unit:
        await unit.logins.logged_in(user.id, at=NOW, password_hash="stronger")
        assert await unit.users.get(user.id) == replace(user, last_login_at=NOW)
        assert await unit.users.password_hash(user.id) == "stronger"


async def test_a_refresh_token_is_good_once(begin: Begin) -> None:
    session = await kept_session(begin, a_session(await kept(begin, a_user())), b"first")
    async with begin() as unit:
        assert await unit.sessions.take(b"first", now=NOW) == (session, True)
        renewed = replace(session, last_used_at=NOW + timedelta(1), expires_at=NOW + timedelta(31))
        await unit.sessions.renew(renewed, refresh_digest=b"second")
        await unit.transaction.commit()
    async with begin() as unit:
        assert await unit.sessions.take(b"first", now=NOW) == (renewed, False)
        assert await unit.sessions.take(b"second", now=NOW) == (renewed, True)
        assert await unit.sessions.take(b"third", now=NOW) is None


async def test_a_refresh_token_that_comes_twice_at_one_moment_is_good_once(begin: Begin) -> None:
    await kept_session(begin, a_session(await kept(begin, a_user())), b"first")

    async def taken() -> bool:
        async with begin() as unit:
            found = await unit.sessions.take(b"first", now=NOW)
            await asyncio.sleep(0.05)
            await unit.transaction.commit()
            assert found is not None
            return found[1]

    assert sorted(await asyncio.gather(*(taken() for _ in range(4)))) == [False, False, False, True]


async def test_sessions_end_one_by_one_all_at_once_or_all_but_one(begin: Begin) -> None:
    user = await kept(begin, a_user())
    sessions = [await kept_session(begin, a_session(user), bytes([n])) for n in range(4)]
    stranger = await kept_session(begin, a_session(await kept(begin, a_user("b@example.org"))), b"b")
    ids = [session.id for session in sessions]
    async with begin() as unit:
        assert list(await unit.sessions.of_user(user.id)) == sessions[::-1]
        assert await unit.sessions.end(user.id, now=NOW, only=stranger.id) == []
        assert await unit.sessions.end(user.id, now=NOW, only=ids[0]) == [ids[0]]
        assert await unit.sessions.end(user.id, now=NOW, only=ids[0]) == []
        assert await unit.sessions.end(user.id, now=NOW, but=ids[3]) == ids[1:3]
        assert await unit.sessions.of_user(user.id) == sessions[3:]
        assert await unit.sessions.end(user.id, now=NOW) == ids[3:]
        assert await unit.sessions.of_user(user.id) == []
        assert await unit.sessions.of_user(stranger.user) == [stranger]


def a_link(user: User | None = None, *, email: str | None = None) -> Link:
    return Link(
        id=LinkId(IDS.new()),
        purpose=LinkPurpose.INVITATION if user is None else LinkPurpose.PASSWORD,
        user=None if user is None else user.id,
        email=email,
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )


async def test_a_link_is_used_once(begin: Begin) -> None:
    user = await kept(begin, a_user())
    link = a_link(user)
    async with begin() as unit:
        await unit.links.add(link, digest=b"one")
        assert await unit.links.take(b"one", purpose=LinkPurpose.PASSWORD, now=NOW) == link
        with pytest.raises(LinkInvalid):
            await unit.links.take(b"one", purpose=LinkPurpose.PASSWORD, now=NOW)


async def test_a_link_that_is_not_good_is_refused(begin: Begin) -> None:
    user = await kept(begin, a_user())
    async with begin() as unit:
        await unit.links.add(a_link(user), digest=b"one")
        for purpose, now, digest in (
            (LinkPurpose.INVITATION, NOW, b"one"),
            (LinkPurpose.PASSWORD, NOW + timedelta(days=1), b"one"),
            (LinkPurpose.PASSWORD, NOW, b"two"),
        ):
            with pytest.raises(LinkInvalid):
                await unit.links.take(digest, purpose=purpose, now=now)
        await unit.links.add(a_link(user), digest=b"newer")
        with pytest.raises(LinkInvalid):
            await unit.links.take(b"one", purpose=LinkPurpose.PASSWORD, now=NOW)
        await unit.links.take(b"newer", purpose=LinkPurpose.PASSWORD, now=NOW)


async def test_an_invitation_of_one_address_is_no_other_ones(begin: Begin) -> None:
    async with begin() as unit:
        await unit.links.add(a_link(email="ada@example.org"), digest=b"one")
        for other in (None, "eve@example.org"):
            with pytest.raises(LinkInvalid):
                await unit.links.take(b"one", purpose=LinkPurpose.INVITATION, now=NOW, email=other)
        await unit.links.take(b"one", purpose=LinkPurpose.INVITATION, now=NOW, email="Ada@Example.org")


async def test_a_lock_grows_and_tries_while_locked_count_nothing(begin: Begin) -> None:
    now, locks = NOW, []
    async with begin() as unit:
        for _ in range(FREE_FAILURES):
            assert await unit.failures.begin("ada@example.org", now=now) is None
        for _ in range(10):
            assert await unit.failures.begin("ada@example.org", now=now) is None
            until = await unit.failures.begin("ADA@example.org", now=now)
            assert until is not None
            locks.append((until - now).total_seconds())
            assert await unit.failures.begin("ada@example.org", now=until - timedelta(microseconds=1)) == until
            now = until
        assert locks == [2, 4, 8, 16, 32, 64, 128, 256, 512, 900]
        assert await unit.failures.begin("bea@example.org", now=now) is None
        await unit.failures.forget("Ada@example.org")
        assert await unit.failures.begin("ada@example.org", now=now) is None


async def test_tries_at_one_moment_cannot_outnumber_the_lock(begin: Begin) -> None:
    async def may_try() -> bool:
        async with begin() as unit:
            until = await unit.failures.begin("ada@example.org", now=NOW)
            await unit.transaction.commit()
            return until is None

    allowed = await asyncio.gather(*(may_try() for _ in range(20)))
    free = next(n for n in range(100) if lock_after(n))
    assert sum(allowed) == free


async def test_a_try_that_was_taken_back_locks_nobody(begin: Begin) -> None:
    free = next(n for n in range(100) if lock_after(n))
    async with begin() as unit:
        for _ in range(free - 1):
            await unit.failures.begin("ada@example.org", now=NOW)
        for _ in range(3):
            assert await unit.failures.begin("ada@example.org", now=NOW) is None  # the one that locks
            await unit.failures.take_back("ada@example.org", begun=NOW)


async def test_a_try_that_was_taken_back_lifts_no_lock_that_a_later_one_set(begin: Begin) -> None:
    free = next(n for n in range(100) if lock_after(n))
    later = NOW + timedelta(milliseconds=1)
    async with begin() as unit:
        for _ in range(free - 1):
            await unit.failures.begin("ada@example.org", now=NOW)
        assert await unit.failures.begin("ada@example.org", now=later) is None
        await unit.failures.take_back("ada@example.org", begun=NOW)
        assert await unit.failures.begin("ada@example.org", now=later) == later + lock_after(free)


async def test_signing_keys_retire_when_another_is_begun(begin: Begin, database: Database) -> None:
    record = SqlSigningKeyRecord(database.reads)
    first, second = (SigningKey(id=SigningKeyId(IDS.new()), created_at=NOW) for _ in range(2))
    retiring = replace(first, retires_at=NOW + timedelta(minutes=16))
    async with begin() as unit:
        assert await unit.keys.in_use() is None
        await unit.keys.begin(first, others_retire_at=NOW)
        assert await unit.keys.in_use() == first
        await unit.keys.begin(second, others_retire_at=NOW + timedelta(minutes=16))
        assert await unit.keys.in_use() == second
        assert await record.all() == []
        await unit.transaction.commit()
    assert sorted(await record.all(), key=lambda key: key.id) == [retiring, second]
    async with begin() as unit:
        assert await unit.keys.purge(NOW + timedelta(minutes=15)) == 0
        assert await unit.keys.purge(NOW + timedelta(minutes=16)) == 1
        assert await unit.keys.in_use() == second


async def test_what_has_run_out_is_taken_away(begin: Begin) -> None:
    user = await kept(begin, a_user())
    session = await kept_session(begin, a_session(user), b"one")
    async with begin() as unit:
        await unit.links.add(a_link(user), digest=b"link")
        await unit.failures.begin("eve@example.org", now=NOW)
        assert await unit.purge.sessions(session.expires_at) == 0
        assert await unit.purge.links(NOW) == 0
        assert await unit.purge.failures(NOW) == 0
        later = NOW + timedelta(days=31)
        assert await unit.purge.sessions(later) == 1
        assert await unit.purge.links(later) == 1
        assert await unit.purge.failures(later) == 1
        assert await unit.sessions.take(b"one", now=NOW) is None
