import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from argon2 import PasswordHasher as Argon2
from dishka import Scope
from sqlalchemy import Text, cast, func, select, update

from adapters.persistence.database import Database
from adapters.persistence.tables import AUDIT_ENTRIES, LOGIN_FAILURES, METADATA, SESSIONS, SIGNING_KEYS, USERS
from application.ports.errors import PortBusy
from application.ports.passwords import PasswordHasher
from application.use_cases.accounts.purge_accounts import PurgeAccounts
from application.use_cases.accounts.rotate_signing_key import RotateSigningKey
from domain.user import FREE_FAILURES
from tests.e2e.wire import is_problem
from tests.security.accounts import OTHER_PASSWORD, PASSWORD, Accounts, Tokens, accounts_of


@pytest.fixture
async def accounts(database_url: str, tmp_path: Path) -> AsyncIterator[Accounts]:
    async with accounts_of(database_url, tmp_path) as opened:
        yield opened


async def actions(database: Database) -> list[str]:
    async with database.reads.connect() as connection:
        found = await connection.execute(select(AUDIT_ENTRIES.c.action).order_by(AUDIT_ENTRIES.c.number))
        return list(found.scalars())


async def test_a_login_gives_tokens_that_nothing_may_keep(accounts: Accounts) -> None:
    await accounts.register("ada@example.org", name="Ada")
    answer = await accounts.log_in("Ada@Example.ORG")
    assert answer.headers["Cache-Control"] == "no-store"
    tokens = answer.json()
    assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_at"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
    assert tokens["refresh_token"].startswith("fr_")
    me = (await accounts.call("GET", "/auth/me", tokens)).json()
    assert (me["user"]["email"], me["user"]["name"], me["user"]["administrator"]) == ("ada@example.org", "Ada", False)
    assert [one["role"] for one in me["memberships"]] == ["owner"]


async def weakly_hashed(accounts: Accounts) -> PasswordHasher:
    """Register Ada, with a hash as an earlier version made it; return what hashes now."""
    await accounts.register("ada@example.org")
    weak = Argon2(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    async with (await accounts.service.container.get(Database)).transactions.begin() as connection:
        await connection.execute(update(USERS).values(password=weak))
    return await accounts.service.container.get(PasswordHasher)


async def kept_hash(accounts: Accounts) -> str:
    async with (await accounts.service.container.get(Database)).reads.connect() as connection:
        kept: str = (await connection.execute(select(USERS.c.password))).scalar_one()
        return kept


async def test_a_password_that_was_hashed_more_weakly_is_hashed_anew_by_a_login(accounts: Accounts) -> None:
    hasher = await weakly_hashed(accounts)
    assert hasher.outdated(await kept_hash(accounts))
    assert [(await accounts.log_in("ada@example.org")).status_code for _ in range(2)] == [200, 200]
    assert not hasher.outdated(await kept_hash(accounts))


async def test_a_login_does_not_fail_for_want_of_room_to_hash_anew(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = await weakly_hashed(accounts)

    async def busy(password: str) -> str:
        raise PortBusy("passwords", f"no room for {len(password)} characters")

    monkeypatch.setattr(hasher, "hashed", busy)
    for _ in range(FREE_FAILURES + 2):
        assert (await accounts.log_in("ada@example.org")).status_code == 200
    assert hasher.outdated(await kept_hash(accounts))


async def test_two_logins_that_hash_anew_at_one_moment_both_succeed(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = await weakly_hashed(accounts)
    hashed, both = hasher.hashed, asyncio.Barrier(2)

    async def together(password: str) -> str:
        made = await hashed(password)
        await both.wait()
        return made

    monkeypatch.setattr(hasher, "hashed", together)
    async with asyncio.timeout(30.0):
        answers = await asyncio.gather(*(accounts.log_in("ada@example.org") for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert not hasher.outdated(await kept_hash(accounts))


async def test_a_login_fails_where_the_password_was_changed_since_it_was_looked_at(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = await weakly_hashed(accounts)
    hashed = hasher.hashed

    async def changed_meanwhile(password: str) -> str:
        another = await hashed(OTHER_PASSWORD)
        async with (await accounts.service.container.get(Database)).transactions.begin() as connection:
            await connection.execute(update(USERS).values(password=another))
        return await hashed(password)

    monkeypatch.setattr(hasher, "hashed", changed_meanwhile)
    is_problem(await accounts.log_in("ada@example.org"), 401, "login_failed")
    await accounts.signed_in("ada@example.org", OTHER_PASSWORD)


async def test_whoever_registers_has_a_workspace_with_a_gallery(accounts: Accounts) -> None:
    tokens = await accounts.member()
    galleries = (await accounts.call("GET", "/galleries", tokens)).json()["items"]
    assert [gallery["name"] for gallery in galleries] == ["default"]


async def test_every_failed_login_is_answered_alike(accounts: Accounts) -> None:
    root = await accounts.administrator()
    await accounts.member()
    for email in ("gone@example.org", "none@example.org"):
        made = await accounts.call("POST", "/users", root, json={"email": email})
        assert made.status_code == 201, made.text
    user = made.json()["user"]["id"]
    assert (await accounts.call("DELETE", f"/users/{user}", root)).status_code == 204
    answers = [
        await accounts.log_in("ada@example.org", OTHER_PASSWORD),
        await accounts.log_in("nobody@example.org"),
        await accounts.log_in("gone@example.org"),
        await accounts.log_in("none@example.org"),
        await accounts.log_in("ada@example.org", "x" * 2000),
        await accounts.log_in("ada@example.org", ""),
    ]
    for answer in answers:
        is_problem(answer, 401, "login_failed")
    told = [{name: value for name, value in one.json().items() if name != "request_id"} for one in answers]
    assert all(one == told[0] for one in told)
    varying = {"x-request-id", "date", "content-length"}  # and how many calls are left to whoever calls
    heads = [
        {name: value for name, value in one.headers.items() if name not in varying and "ratelimit" not in name}
        for one in answers
    ]
    assert all(one == heads[0] for one in heads)


async def test_a_failed_login_takes_as_long_with_an_account_as_without(accounts: Accounts) -> None:
    root = await accounts.administrator()
    await accounts.member()
    for email in ("none@example.org", "gone@example.org"):
        user = (await accounts.call("POST", "/users", root, json={"email": email})).json()["user"]["id"]
    async with (await accounts.service.container.get(Database)).transactions.begin() as connection:
        password = select(USERS.c.password).where(USERS.c.password.is_not(None)).limit(1).scalar_subquery()
        await connection.execute(
            update(USERS).where(USERS.c.id == user).values(password=password, deleted_at=func.now())
        )
    await accounts.log_in("warm@example.org")
    took: dict[str, list[float]] = {"ada": [], "gone": [], "none": [], "nobody": []}
    for n in range(7):
        for kind, times in took.items():
            await _forget_failures(accounts)
            begun = time.perf_counter()
            name = f"{kind}{n}" if kind == "nobody" else kind
            is_problem(await accounts.log_in(f"{name}@example.org", OTHER_PASSWORD), 401, "login_failed")
            times.append(time.perf_counter() - begun)
    medians = [statistics.median(times) for times in took.values()]
    assert max(medians) / min(medians) < 1.6, took
    assert min(medians) > 0.03  # a hash was made, in each


@pytest.mark.parametrize("email", ["ada@example.org", "nobody@example.org"])
async def test_an_address_is_locked_for_longer_and_longer_whoever_has_it(accounts: Accounts, email: str) -> None:
    await accounts.member("ada@example.org")
    for _ in range(FREE_FAILURES + 1):
        is_problem(await accounts.log_in(email, OTHER_PASSWORD), 401, "login_failed")
    locked = await accounts.log_in(email.upper())
    is_problem(locked, 429, "too_many_attempts")
    assert 1 <= int(locked.headers["Retry-After"]) <= 2
    is_problem(await accounts.log_in(email, PASSWORD), 429, "too_many_attempts")
    await asyncio.sleep(2.1)
    is_problem(await accounts.log_in(email, OTHER_PASSWORD), 401, "login_failed")
    again = await accounts.log_in(email)
    is_problem(again, 429, "too_many_attempts")
    assert 3 <= int(again.headers["Retry-After"]) <= 4


async def test_a_lock_is_one_accounts_alone_and_a_success_forgets_its_failures(
    accounts: Accounts, database: Database
) -> None:
    await accounts.member("ada@example.org")
    await accounts.member("bea@example.org")
    for _ in range(FREE_FAILURES + 1):
        await accounts.log_in("ada@example.org", OTHER_PASSWORD)
    for _ in range(FREE_FAILURES - 1):
        await accounts.log_in("bea@example.org", OTHER_PASSWORD)
    await accounts.signed_in("bea@example.org")
    async with database.reads.connect() as connection:
        failures = list((await connection.execute(select(LOGIN_FAILURES.c.failures))).scalars())
    assert failures == [FREE_FAILURES + 1]


async def test_many_guesses_at_one_moment_are_no_more_than_one_after_another(accounts: Accounts) -> None:
    await accounts.member()
    answers = await asyncio.gather(*(accounts.log_in("ada@example.org", OTHER_PASSWORD) for _ in range(16)))
    tried = [answer.status_code for answer in answers].count(401)
    assert tried <= FREE_FAILURES + 1
    assert {answer.status_code for answer in answers} <= {401, 429, 503}


async def test_a_refresh_token_is_good_once_and_each_gives_the_next(accounts: Accounts) -> None:
    tokens = await accounts.member()
    for _ in range(3):
        answer = await accounts.refresh(tokens["refresh_token"])
        assert answer.headers["Cache-Control"] == "no-store"
        newer = answer.json()
        assert newer["refresh_token"] != tokens["refresh_token"]
        assert newer["access_token"] != tokens["access_token"]
        tokens = newer
    assert (await accounts.call("GET", "/auth/me", tokens)).status_code == 200


async def test_a_replayed_refresh_token_ends_its_whole_family_at_once(accounts: Accounts, database: Database) -> None:
    stolen = await accounts.member()
    other = await accounts.signed_in("ada@example.org")
    newer = (await accounts.refresh(stolen["refresh_token"])).json()
    assert (await accounts.call("GET", "/auth/me", newer)).status_code == 200
    is_problem(await accounts.refresh(stolen["refresh_token"]), 401, "credential_invalid")
    is_problem(await accounts.refresh(newer["refresh_token"]), 401, "credential_invalid")
    for tokens in (stolen, newer):
        is_problem(await accounts.call("GET", "/auth/me", tokens), 401, "credential_invalid")
    assert (await accounts.call("GET", "/auth/me", other)).status_code == 200
    assert "session.token_reused" in await actions(database)


async def test_a_refresh_token_that_is_used_twice_at_one_moment_ends_its_family(accounts: Accounts) -> None:
    tokens = await accounts.member()
    answers = await asyncio.gather(*(accounts.refresh(tokens["refresh_token"]) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401, 401]
    (won,) = [answer.json() for answer in answers if answer.status_code == 200]
    is_problem(await accounts.refresh(won["refresh_token"]), 401, "credential_invalid")
    is_problem(await accounts.call("GET", "/auth/me", won), 401, "credential_invalid")


@pytest.mark.parametrize("token", ["", "fr_", "fr_" + "A" * 43, "' OR 1=1 --", "\x00", "é"])
async def test_what_is_no_refresh_token_is_refused(accounts: Accounts, token: str) -> None:
    is_problem(await accounts.refresh(token), 401, "credential_invalid")


async def test_an_access_token_is_no_refresh_token_and_the_other_way_round(accounts: Accounts) -> None:
    tokens = await accounts.member()
    is_problem(await accounts.refresh(tokens["access_token"]), 401, "credential_invalid")
    swapped = {"access_token": tokens["refresh_token"]}
    is_problem(await accounts.call("GET", "/auth/me", swapped), 401, "credential_invalid")


async def test_logging_out_ends_this_session_at_once_and_no_other(accounts: Accounts) -> None:
    here, there = await accounts.member(), await accounts.signed_in("ada@example.org")
    assert (await accounts.call("POST", "/auth/logout", here)).status_code == 204
    is_problem(await accounts.call("GET", "/auth/me", here), 401, "credential_invalid")
    is_problem(await accounts.refresh(here["refresh_token"]), 401, "credential_invalid")
    assert (await accounts.call("GET", "/auth/me", there)).status_code == 200


async def test_a_user_sees_and_ends_own_sessions(accounts: Accounts) -> None:
    here = await accounts.member()
    there = (await accounts.log_in("ada@example.org", agent="Firefox\x7f on Linux")).json()
    stranger = await accounts.member("bea@example.org")
    listed = (await accounts.call("GET", "/auth/sessions", here)).json()["items"]
    assert [(one["agent"], one["current"]) for one in listed] == [("Firefox on Linux", False), ("a test", True)]
    path = f"/auth/sessions/{listed[0]['id']}"
    is_problem(await accounts.call("DELETE", path, stranger), 404, "session_not_found")
    assert (await accounts.call("DELETE", path, here)).status_code == 204
    is_problem(await accounts.call("DELETE", path, here), 404, "session_not_found")
    is_problem(await accounts.call("GET", "/auth/me", there), 401, "credential_invalid")
    assert len((await accounts.call("GET", "/auth/sessions", here)).json()["items"]) == 1


async def test_a_changed_password_ends_all_other_sessions_and_keeps_this_one(accounts: Accounts) -> None:
    here, there = await accounts.member(), await accounts.signed_in("ada@example.org")
    body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert (await accounts.call("POST", "/auth/password", here, json=body)).status_code == 204
    is_problem(await accounts.call("GET", "/auth/me", there), 401, "credential_invalid")
    is_problem(await accounts.refresh(there["refresh_token"]), 401, "credential_invalid")
    assert (await accounts.call("GET", "/auth/me", here)).status_code == 200
    assert (await accounts.refresh(here["refresh_token"])).status_code == 200
    is_problem(await accounts.log_in("ada@example.org", PASSWORD), 401, "login_failed")
    await accounts.signed_in("ada@example.org", OTHER_PASSWORD)


async def test_a_wrong_current_password_changes_nothing_and_counts_as_a_failed_login(accounts: Accounts) -> None:
    here = await accounts.member()
    body = {"current_password": "not the one it is", "new_password": OTHER_PASSWORD}
    for _ in range(FREE_FAILURES + 1):
        is_problem(await accounts.call("POST", "/auth/password", here, json=body), 401, "login_failed")
    is_problem(await accounts.call("POST", "/auth/password", here, json=body), 429, "too_many_attempts")
    is_problem(await accounts.log_in("ada@example.org"), 429, "too_many_attempts")


async def test_a_new_password_that_is_refused_is_named_as_it_was_sent(accounts: Accounts) -> None:
    here = await accounts.member()
    body = {"current_password": PASSWORD, "new_password": "short"}
    refused = await accounts.call("POST", "/auth/password", here, json=body)
    is_problem(refused, 422, "password_refused", field="new_password")
    is_problem(await accounts.register("bea@example.org", "short"), 422, "password_refused", field="password")


@pytest.mark.parametrize(
    "password", ["", "short", "password1234", "qwerty123456", "aaaaaaaaaaaaaa", "ADA@example.org", "x" * 1025]
)
async def test_bad_passwords_are_refused_with_what_to_do(accounts: Accounts, password: str) -> None:
    problem = is_problem(
        await accounts.register("ada@example.org", password), 422, "password_refused", field="password"
    )
    if password:
        assert password not in str(problem)


async def test_an_address_is_taken_in_any_case(accounts: Accounts) -> None:
    await accounts.member("ada@example.org")
    is_problem(await accounts.register("ADA@EXAMPLE.org"), 409, "email_taken")


@pytest.mark.parametrize(
    "more",
    [
        {"administrator": True},
        {"id": "00000000-0000-0000-0000-000000000001"},
        {"role": "owner"},
        {"workspace_id": "00000000-0000-0000-0000-000000000001"},
        {"version": 9},
        {"deleted_at": None},
    ],
)
async def test_nobody_registers_as_more_than_they_are(accounts: Accounts, more: dict[str, Any]) -> None:
    is_problem(await accounts.register("ada@example.org", **more), 422, "invalid_value", field=next(iter(more)))


async def test_users_are_for_administrators_alone(accounts: Accounts) -> None:
    tokens = await accounts.member()
    me = (await accounts.call("GET", "/auth/me", tokens)).json()["user"]["id"]
    for method, path, body in (
        ("GET", "/users", None),
        ("POST", "/users", {"email": "eve@example.org"}),
        ("POST", "/users/bulk", {"items": []}),
        ("GET", f"/users/{me}", None),
        ("PATCH", f"/users/{me}", {"administrator": True}),
        ("DELETE", f"/users/{me}", None),
        ("POST", f"/users/{me}/restore", None),
        ("POST", f"/users/{me}/password-link", None),
    ):
        is_problem(await accounts.call(method, path, tokens, json=body), 403, "administrator_only")
        is_problem(await accounts.call(method, path, json=body), 401, "credential_missing")


async def test_nothing_that_is_secret_stands_in_the_database(accounts: Accounts, database: Database) -> None:
    tokens = await accounts.member()
    root = await accounts.administrator()
    made = await accounts.call("POST", "/users", root, json={"email": "bea@example.org", "password_link": True})
    secrets = [
        PASSWORD,
        tokens["access_token"],
        tokens["refresh_token"],
        made.json()["link"]["token"],
        "ada@example",
        "bea@example",
    ]
    rows: list[str] = []
    async with database.reads.connect() as connection:
        for table in METADATA.sorted_tables:
            rows.extend((await connection.execute(select(cast(table.table_valued(), Text)))).scalars())
    assert any(made.json()["user"]["id"] in row for row in rows)
    for secret in secrets:
        assert not any(secret in row or secret.encode().hex() in row for row in rows)


async def test_what_is_done_to_accounts_stands_in_the_audit_log(accounts: Accounts, database: Database) -> None:
    tokens = await accounts.member()
    await accounts.log_in("ada@example.org", OTHER_PASSWORD)
    await accounts.call("POST", "/auth/logout", tokens)
    found = await actions(database)
    for action in ("user.registered", "user.logged_in", "user.login_failed", "user.logged_out"):
        assert action in found


async def rotated(accounts: Accounts, *, at_once: bool = False) -> None:
    async with accounts.service.container(scope=Scope.REQUEST) as unit:
        await (await unit.get(RotateSigningKey))(at_once=at_once)


def key_of(tokens: Tokens) -> str:
    kid: str = jwt.get_unverified_header(tokens["access_token"])["kid"]
    return kid


async def test_tokens_of_the_signing_key_before_are_good_until_they_expire(accounts: Accounts) -> None:
    older = await accounts.member()
    await rotated(accounts)
    newer = await accounts.signed_in("ada@example.org")
    assert key_of(newer) != key_of(older)
    for tokens in (older, newer):
        assert (await accounts.call("GET", "/auth/me", tokens)).status_code == 200


async def test_a_signing_key_that_is_given_up_at_once_is_refused_and_sessions_go_on(accounts: Accounts) -> None:
    older = await accounts.member()
    await rotated(accounts, at_once=True)
    is_problem(await accounts.call("GET", "/auth/me", older), 401, "credential_invalid")
    newer = (await accounts.refresh(older["refresh_token"])).json()
    assert (await accounts.call("GET", "/auth/me", newer)).status_code == 200


async def test_a_signing_key_rotates_by_itself_when_it_is_old(accounts: Accounts, database: Database) -> None:
    older = await accounts.member()
    assert key_of(await accounts.signed_in("ada@example.org")) == key_of(older)
    async with database.transactions.begin() as connection:
        await connection.execute(SIGNING_KEYS.update().values(created_at=func.now() - timedelta(days=31)))
    newer = await accounts.signed_in("ada@example.org")
    assert key_of(newer) != key_of(older)
    assert (await accounts.call("GET", "/auth/me", older)).status_code == 200
    assert (await actions(database)).count("signing_key.rotated") == 2


async def test_upkeep_keeps_what_is_in_use(accounts: Accounts) -> None:
    tokens = await accounts.member()
    async with accounts.service.container(scope=Scope.REQUEST) as unit:
        await (await unit.get(PurgeAccounts))()
    assert (await accounts.call("GET", "/auth/me", tokens)).status_code == 200
    assert (await accounts.refresh(tokens["refresh_token"])).status_code == 200


async def test_a_session_that_has_run_out_is_refreshed_no_more(accounts: Accounts, database: Database) -> None:
    tokens = await accounts.member()
    async with database.transactions.begin() as connection:
        await connection.execute(SESSIONS.update().values(expires_at=func.now()))
    is_problem(await accounts.refresh(tokens["refresh_token"]), 401, "credential_invalid")


async def _forget_failures(accounts: Accounts) -> None:
    database = await accounts.service.container.get(Database)
    async with database.transactions.begin() as connection:
        await connection.execute(LOGIN_FAILURES.delete())
