import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from dishka import Scope
from sqlalchemy import delete, select

from adapters.persistence.database import Database
from adapters.persistence.tables import ONE_TIME_LINKS, USERS
from application.use_cases.accounts.make_link import MakeLink
from domain.permission import Role
from domain.user import UserId
from tests.conftest import execute
from tests.e2e.wire import is_problem
from tests.locks import somebody_waits
from tests.security.accounts import OTHER_PASSWORD, PASSWORD, ROOT, Accounts, Tokens, accounts_of


@pytest.fixture
async def accounts(database_url: str, tmp_path: Path) -> AsyncIterator[Accounts]:
    async with accounts_of(database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def root(accounts: Accounts) -> Tokens:
    return await accounts.administrator()


async def created(accounts: Accounts, root: Tokens, email: str, **more: object) -> dict[str, Any]:
    answer = await accounts.call("POST", "/users", root, json={"email": email, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_an_administrator_makes_a_user_who_sets_the_password_with_a_link(
    accounts: Accounts, root: Tokens
) -> None:
    made = await created(accounts, root, "bea@example.org", name="Bea", password_link=True)
    assert (made["user"]["has_password"], made["user"]["administrator"]) == (False, False)
    link = made["link"]
    assert link["url"] == f"http://127.0.0.1:8000/account#{link['token']}"
    assert link["purpose"] == "password"
    shown = await accounts.call("POST", "/auth/link", json={"token": link["token"]})
    assert shown.json()["purpose"] == "password"
    reset = {"token": link["token"], "password": PASSWORD}
    assert (await accounts.call("POST", "/auth/password/reset", json=reset)).status_code == 204
    is_problem(await accounts.call("POST", "/auth/password/reset", json=reset), 422, "link_invalid")
    is_problem(await accounts.call("POST", "/auth/link", json={"token": link["token"]}), 422, "link_invalid")
    await accounts.signed_in("bea@example.org")


async def test_a_link_ends_all_sessions_and_the_lock_and_a_newer_one_the_older(
    accounts: Accounts, root: Tokens
) -> None:
    user = (await created(accounts, root, "bea@example.org", password=PASSWORD))["user"]["id"]
    tokens = await accounts.signed_in("bea@example.org")
    for _ in range(6):
        await accounts.log_in("bea@example.org", OTHER_PASSWORD)
    older, newer = [
        (await accounts.call("POST", f"/users/{user}/password-link", root)).json()["token"] for _ in range(2)
    ]
    for token, status in ((older, 422), (newer, 204)):
        body = {"token": token, "password": OTHER_PASSWORD}
        assert (await accounts.call("POST", "/auth/password/reset", json=body)).status_code == status
    is_problem(await accounts.call("GET", "/auth/me", tokens), 401, "credential_invalid")
    await accounts.signed_in("bea@example.org", OTHER_PASSWORD)


async def test_a_bad_password_does_not_use_up_the_link(accounts: Accounts, root: Tokens) -> None:
    token = (await created(accounts, root, "bea@example.org", password_link=True))["link"]["token"]
    for password in ("short", "bea@example.org", "qwerty123456"):
        body = {"token": token, "password": password}
        is_problem(await accounts.call("POST", "/auth/password/reset", json=body), 422, "password_refused")
    body = {"token": token, "password": PASSWORD}
    assert (await accounts.call("POST", "/auth/password/reset", json=body)).status_code == 204


async def test_a_link_used_twice_at_one_moment_is_used_once(accounts: Accounts, root: Tokens) -> None:
    token = (await created(accounts, root, "bea@example.org", password_link=True))["link"]["token"]
    body = {"token": token, "password": PASSWORD}
    answers = await asyncio.gather(*(accounts.call("POST", "/auth/password/reset", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [204, 422, 422, 422]


async def test_several_users_are_made_in_one_call_each_for_itself(accounts: Accounts, root: Tokens) -> None:
    items = [
        {"email": "one@example.org", "password_link": True},
        {"email": ROOT.upper()},
        {"email": "no address"},
        {"email": "two@example.org", "password": "short"},
        {"email": "three@example.org", "administrator": True},
        {"email": "One@example.org"},
    ]
    answer = await accounts.call("POST", "/users/bulk", root, json={"items": items})
    assert answer.status_code == 200
    results = answer.json()["items"]
    assert [one["index"] for one in results] == [0, 1, 2, 3, 4, 5]
    codes = [one["problem"] and one["problem"]["code"] for one in results]
    assert codes[1:4] == ["email_taken", "invalid_value", "password_refused"]
    assert sorted(map(str, (codes[0], codes[5]))) == ["None", "email_taken"]
    assert results[4]["user"]["administrator"]
    too_many = {"items": [{"email": f"user{n}@example.org"} for n in range(101)]}
    is_problem(await accounts.call("POST", "/users/bulk", root, json=too_many), 422, "too_many_items")


async def test_users_are_listed_in_pages_and_found(accounts: Accounts, root: Tokens) -> None:
    for n in range(4):
        await created(accounts, root, f"user{n}@example.org", administrator=n == 3)
    first = (await accounts.call("GET", "/users?limit=3", root)).json()
    rest = (await accounts.call("GET", f"/users?limit=3&cursor={first['next_cursor']}", root)).json()
    emails = [user["email"] for user in first["items"] + rest["items"]]
    assert emails == [ROOT, *(f"user{n}@example.org" for n in range(4))]
    assert rest["next_cursor"] is None
    found = (await accounts.call("GET", "/users?email=USER2@example.org", root)).json()["items"]
    assert [user["email"] for user in found] == ["user2@example.org"]
    found = (await accounts.call("GET", "/users?administrator=true", root)).json()["items"]
    assert [user["email"] for user in found] == [ROOT, "user3@example.org"]
    foreign = await accounts.call("GET", f"/users?administrator=true&cursor={first['next_cursor']}", root)
    is_problem(foreign, 422, "invalid_cursor")


async def test_a_change_is_made_to_the_version_that_was_seen(accounts: Accounts, root: Tokens) -> None:
    user = (await created(accounts, root, "bea@example.org"))["user"]["id"]
    tag = (await accounts.call("GET", f"/users/{user}", root)).headers["ETag"]
    body = {"name": "Beatrice", "email": "beatrice@example.org"}
    changed = await accounts.call("PATCH", f"/users/{user}", root, json=body, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["name"], changed.headers["ETag"]) == (200, "Beatrice", '"2"')
    stale = await accounts.call("PATCH", f"/users/{user}", root, json=body, headers={"If-Match": tag})
    is_problem(stale, 412, "version_mismatch")
    taken = await accounts.call("PATCH", f"/users/{user}", root, json={"email": ROOT})
    is_problem(taken, 409, "email_taken")
    for field in ("id", "password", "has_password", "version", "deleted_at", "last_login_at"):
        wrong = await accounts.call("PATCH", f"/users/{user}", root, json={field: "x"})
        is_problem(wrong, 422, "invalid_value", field=field)


async def test_a_deleted_user_is_out_at_once_and_comes_back_restored(accounts: Accounts, root: Tokens) -> None:
    tokens = await accounts.member("bea@example.org")
    user = (await accounts.call("GET", "/auth/me", tokens)).json()["user"]["id"]
    assert (await accounts.call("DELETE", f"/users/{user}", root)).status_code == 204
    is_problem(await accounts.call("GET", "/auth/me", tokens), 401, "credential_invalid")
    is_problem(await accounts.refresh(tokens["refresh_token"]), 401, "credential_invalid")
    is_problem(await accounts.log_in("bea@example.org"), 401, "login_failed")
    is_problem(await accounts.call("DELETE", f"/users/{user}", root), 404, "user_not_found")
    is_problem(await accounts.call("POST", f"/users/{user}/password-link", root), 404, "user_not_found")
    is_problem(await accounts.register("bea@example.org"), 409, "email_taken")
    assert (await accounts.call("GET", "/users?email=bea@example.org", root)).json()["items"] == []
    listed = (await accounts.call("GET", "/users?deleted=true", root)).json()["items"]
    assert [one["id"] for one in listed] == [user]
    restored = await accounts.call("POST", f"/users/{user}/restore", root)
    assert (restored.status_code, restored.json()["deleted_at"]) == (200, None)
    is_problem(await accounts.refresh(tokens["refresh_token"]), 401, "credential_invalid")
    await accounts.signed_in("bea@example.org")


async def test_the_last_administrator_stays(accounts: Accounts, root: Tokens) -> None:
    me = (await accounts.call("GET", "/auth/me", root)).json()["user"]["id"]
    is_problem(await accounts.call("DELETE", f"/users/{me}", root), 409, "last_administrator")
    demoted = await accounts.call("PATCH", f"/users/{me}", root, json={"administrator": False})
    is_problem(demoted, 409, "last_administrator")
    other = (await created(accounts, root, "two@example.org", administrator=True))["user"]["id"]
    both = await asyncio.gather(*(accounts.call("DELETE", f"/users/{user}", root) for user in (me, other)))
    assert sorted(answer.status_code for answer in both) in ([204, 409], [204, 401])


async def test_a_demoted_administrator_is_one_no_longer_at_once(accounts: Accounts, root: Tokens) -> None:
    other = (await created(accounts, root, "two@example.org", administrator=True, password=PASSWORD))["user"]["id"]
    tokens = await accounts.signed_in("two@example.org")
    assert (await accounts.call("GET", "/users", tokens)).status_code == 200
    await accounts.call("PATCH", f"/users/{other}", root, json={"administrator": False})
    is_problem(await accounts.call("GET", "/users", tokens), 403, "administrator_only")


async def invited(accounts: Accounts, email: str | None = None, *, role: Role | None = Role.VIEWER) -> str:
    async with accounts.service.container(scope=Scope.REQUEST) as unit:
        workspace = None if role is None else accounts.service.workspace
        return (await (await unit.get(MakeLink))(workspace=workspace, role=role, email=email)).token


async def test_somebody_who_is_invited_becomes_a_member_of_that_workspace_alone(accounts: Accounts) -> None:
    token = await invited(accounts)
    assert (await accounts.call("POST", "/auth/link", json={"token": token})).json()["purpose"] == "invitation"
    assert (await accounts.register("ada@example.org", invitation=token)).status_code == 201
    is_problem(await accounts.register("eve@example.org", invitation=token), 422, "link_invalid")
    tokens = await accounts.signed_in("ada@example.org")
    memberships = (await accounts.call("GET", "/auth/me", tokens)).json()["memberships"]
    assert [(one["workspace_id"], one["role"]) for one in memberships] == [(str(accounts.service.workspace), "viewer")]


async def test_an_invitation_is_accepted_by_whoever_is_signed_in(accounts: Accounts) -> None:
    tokens = await accounts.member()
    token = await invited(accounts, "ada@example.org", role=Role.OPERATOR)
    stranger = await accounts.member("eve@example.org")
    refused = await accounts.call("POST", "/auth/invitation", stranger, json={"token": token})
    is_problem(refused, 422, "link_invalid")
    accepted = await accounts.call("POST", "/auth/invitation", tokens, json={"token": token})
    assert (accepted.status_code, accepted.json()["role"]) == (200, "operator")
    again = await accounts.call("POST", "/auth/invitation", tokens, json={"token": token})
    is_problem(again, 422, "link_invalid")
    assert len((await accounts.call("GET", "/auth/me", tokens)).json()["memberships"]) == 2


async def test_an_invitation_that_is_refused_is_not_used_up(accounts: Accounts) -> None:
    await accounts.member("ada@example.org")
    token = await invited(accounts)
    is_problem(await accounts.register("ada@example.org", invitation=token), 409, "email_taken")
    is_problem(await accounts.register("bea@example.org", "short", invitation=token), 422, "password_refused")
    assert (await accounts.register("bea@example.org", invitation=token)).status_code == 201


async def test_a_link_of_one_purpose_does_nothing_else(accounts: Accounts, root: Tokens) -> None:
    invitation = await invited(accounts)
    password = (await created(accounts, root, "bea@example.org", password_link=True))["link"]["token"]
    reset = await accounts.call("POST", "/auth/password/reset", json={"token": invitation, "password": PASSWORD})
    is_problem(reset, 422, "link_invalid")
    is_problem(await accounts.register("eve@example.org", invitation=password), 422, "link_invalid")
    is_problem(await accounts.call("POST", "/auth/invitation", root, json={"token": password}), 422, "link_invalid")


async def test_where_registration_is_by_invitation_nobody_registers_without(database_url: str, tmp_path: Path) -> None:
    async with accounts_of(database_url, tmp_path, registration="invitation") as accounts:
        is_problem(await accounts.register("ada@example.org"), 403, "registration_closed")
        assert (
            await accounts.register("ada@example.org", invitation=await invited(accounts, role=None))
        ).status_code == 201


async def test_where_registration_is_closed_nobody_registers(database_url: str, tmp_path: Path) -> None:
    async with accounts_of(database_url, tmp_path, registration="closed") as accounts:
        is_problem(await accounts.register("ada@example.org"), 403, "registration_closed")
        answer = await accounts.register("ada@example.org", invitation=await invited(accounts))
        is_problem(answer, 403, "registration_closed")


@pytest.mark.parametrize("path", ["/account", "/account/account.css", "/account/account.js"])
async def test_the_page_of_links_loads_nothing_from_elsewhere_and_is_framed_by_nobody(
    accounts: Accounts, path: str
) -> None:
    answer = await accounts.client.get(f"http://facepass{path}")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "http://" not in answer.text.replace("http://www.w3.org/", "")
    assert "https://" not in answer.text
    assert "<script>" not in answer.text
    assert "style=" not in answer.text


async def test_what_answers_with_a_secret_takes_no_idempotency_key(accounts: Accounts, root: Tokens) -> None:
    user = (await created(accounts, root, "bea@example.org", password=PASSWORD))["user"]["id"]
    tokens = await accounts.signed_in("bea@example.org")
    new = {"email": "cyd@example.org", "password_link": True}
    login = {"email": "bea@example.org", "password": PASSWORD}
    for path, body in (
        ("/users", new),
        ("/users/bulk", {"items": [new]}),
        (f"/users/{user}/password-link", None),
        (f"/workspaces/{accounts.service.workspace}/invitations", {"role": "viewer"}),
        ("/auth/login", login),
        ("/auth/refresh", {"refresh_token": tokens["refresh_token"]}),
    ):
        who = None if path.startswith("/auth") else root
        refused = await accounts.call("POST", path, who, json=body, headers={"Idempotency-Key": "once"})
        is_problem(refused, 422, "invalid_value", field="Idempotency-Key")
    assert (await accounts.refresh(tokens["refresh_token"])).status_code == 200
    await created(accounts, root, "cyd@example.org")


async def link_of(accounts: Accounts, root: Tokens, user: str) -> str:
    answer = await accounts.call("POST", f"/users/{user}/password-link", root)
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


async def test_a_link_is_good_no_longer_once_the_password_was_changed(accounts: Accounts, root: Tokens) -> None:
    tokens = await accounts.member("bea@example.org")
    user = (await accounts.call("GET", "/auth/me", tokens)).json()["user"]["id"]
    link = await link_of(accounts, root, user)
    body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert (await accounts.call("POST", "/auth/password", tokens, json=body)).status_code == 204
    is_problem(await accounts.call("POST", "/auth/link", json={"token": link}), 422, "link_invalid")
    link = await link_of(accounts, root, user)
    await accounts.administrator("bea@example.org")
    is_problem(await accounts.call("POST", "/auth/link", json={"token": link}), 422, "link_invalid")


async def test_a_deleted_user_comes_back_without_the_old_link(accounts: Accounts, root: Tokens) -> None:
    user = (await created(accounts, root, "bea@example.org", password=PASSWORD))["user"]["id"]
    link = await link_of(accounts, root, user)
    assert (await accounts.call("DELETE", f"/users/{user}", root)).status_code == 204
    assert (await accounts.call("POST", f"/users/{user}/restore", root)).status_code == 200
    reset = await accounts.call("POST", "/auth/password/reset", json={"token": link, "password": OTHER_PASSWORD})
    is_problem(reset, 422, "link_invalid")


@pytest.fixture
async def two(accounts: Accounts, root: Tokens) -> tuple[str, Tokens]:
    """A second administrator: their id and tokens."""
    made = await created(accounts, root, "two@example.org", administrator=True, password=PASSWORD)
    return made["user"]["id"], await accounts.signed_in("two@example.org")


async def links_by(accounts: Accounts, maker: Tokens) -> list[str]:
    """Make a link in each way that there is; return their tokens."""
    bea = await created(accounts, maker, "bea@example.org", password_link=True)
    items = [{"email": "cyd@example.org", "password_link": True}]
    (cyd,) = (await accounts.call("POST", "/users/bulk", maker, json={"items": items})).json()["items"]
    dee = (await created(accounts, maker, "dee@example.org"))["user"]["id"]
    return [bea["link"]["token"], cyd["link"]["token"], await link_of(accounts, maker, dee)]


async def are_refused(accounts: Accounts, links: list[str]) -> None:
    for token in links:
        is_problem(await accounts.call("POST", "/auth/link", json={"token": token}), 422, "link_invalid")
        body = {"token": token, "password": PASSWORD}
        is_problem(await accounts.call("POST", "/auth/password/reset", json=body), 422, "link_invalid")


async def test_a_link_for_a_password_is_good_no_longer_than_its_maker_administers(
    accounts: Accounts, two: tuple[str, Tokens], database_url: str
) -> None:
    user, tokens = two
    links = await links_by(accounts, tokens)
    for lost, again in (("administrator = false", "administrator = true"), ("deleted_at = now()", "deleted_at = NULL")):
        # Whatever way it is lost: by a statement of the database's owner too, and by one while a link is being made.
        await execute(database_url, f"UPDATE users SET {lost} WHERE id = '{user}'")  # noqa: S608 - words and an id of ours
        await are_refused(accounts, links)
        await execute(database_url, f"UPDATE users SET {again} WHERE id = '{user}'")  # noqa: S608 - the same
    for token in links:
        body = {"token": token, "password": PASSWORD}
        assert (await accounts.call("POST", "/auth/password/reset", json=body)).status_code == 204


async def test_who_administers_again_finds_none_of_the_old_links_good(
    accounts: Accounts, root: Tokens, two: tuple[str, Tokens]
) -> None:
    user, tokens = two
    links = await links_by(accounts, tokens)
    for administrator in (False, True):
        changed = await accounts.call("PATCH", f"/users/{user}", root, json={"administrator": administrator})
        assert changed.status_code == 200, changed.text
    await are_refused(accounts, links)
    bea = (await accounts.call("GET", "/users?email=bea@example.org", root)).json()["items"][0]["id"]
    links = [await link_of(accounts, tokens, bea)]
    assert (await accounts.call("DELETE", f"/users/{user}", root)).status_code == 204
    assert (await accounts.call("POST", f"/users/{user}/restore", root)).status_code == 200
    await are_refused(accounts, links)


async def test_a_link_of_the_command_line_hangs_on_nobody(accounts: Accounts, root: Tokens) -> None:
    user = (await created(accounts, root, "bea@example.org"))["user"]["id"]
    async with accounts.service.container(scope=Scope.REQUEST) as unit:
        made = await (await unit.get(MakeLink))(user=UserId(UUID(user)))
    body = {"token": made.token, "password": PASSWORD}
    assert (await accounts.call("POST", "/auth/link", json={"token": made.token})).status_code == 200
    assert (await accounts.call("POST", "/auth/password/reset", json=body)).status_code == 204


async def test_a_link_that_is_taken_while_it_is_withdrawn_is_refused_and_neither_waits_for_ever(
    accounts: Accounts, root: Tokens, database: Database
) -> None:
    made = await created(accounts, root, "bea@example.org", password_link=True)
    user = UserId(UUID(made["user"]["id"]))
    body = {"token": made["link"]["token"], "password": PASSWORD}
    async with database.transactions.begin() as connection, asyncio.TaskGroup() as tasks:
        # As whoever makes a link, or changes a password, or deletes the user: the user first, and then their links.
        await connection.execute(select(USERS.c.id).where(USERS.c.id == user).with_for_update(key_share=True))
        reset = tasks.create_task(accounts.call("POST", "/auth/password/reset", json=body))
        await somebody_waits(database)
        await connection.execute(delete(ONE_TIME_LINKS).where(ONE_TIME_LINKS.c.user_id == user))
        await connection.commit()
    is_problem(await reset, 422, "link_invalid")


async def joined(accounts: Accounts, owner: Tokens, workspace: str, email: str) -> str:
    """Invite somebody, who registers and is a viewer; return their id."""
    made = await accounts.call("POST", f"/workspaces/{workspace}/invitations", owner, json={"role": "viewer"})
    registered = await accounts.register(email, invitation=made.json()["token"])
    assert registered.status_code == 201, registered.text
    user: str = registered.json()["id"]
    return user


async def test_the_last_owner_of_others_is_not_deleted(accounts: Accounts, root: Tokens) -> None:
    tokens = await accounts.member("bea@example.org")
    me = (await accounts.call("GET", "/auth/me", tokens)).json()
    owner, workspace = me["user"]["id"], me["memberships"][0]["workspace_id"]
    members = f"/workspaces/{workspace}/members"
    other = await joined(accounts, tokens, workspace, "two@example.org")
    is_problem(await accounts.call("DELETE", f"/users/{owner}", root), 409, "last_owner")
    assert (await accounts.call("PATCH", f"{members}/{other}", tokens, json={"role": "owner"})).status_code == 200
    await joined(accounts, tokens, workspace, "three@example.org")
    both = await asyncio.gather(*(accounts.call("DELETE", f"/users/{user}", root) for user in (owner, other)))
    assert sorted(answer.status_code for answer in both) == [204, 409]
