import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import delete, select

from adapters.persistence.database import Database
from adapters.persistence.tables import ONE_TIME_LINKS, WORKSPACES
from domain.permission import Role
from tests.conftest import execute
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import SignedIn, another_workspace, caller, sign_in
from tests.e2e.wire import is_problem
from tests.e2e.with_jobs import WithJobs
from tests.locks import somebody_waits

NOBODY = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"


@pytest.fixture
async def service(database_url: str, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with in_process(settings_for(database_url, tmp_path, tmp_path), WithJobs(), work=False) as running:
        yield running


async def member(service: InProcess, role: Role) -> SignedIn:
    return await sign_in(service.container, roles={service.workspace: role})


async def role_of(client: httpx.AsyncClient, workspace: object, user: object) -> str | None:
    items = (await client.get(f"/workspaces/{workspace}/members")).json()["items"]
    return next((one["role"] for one in items if one["user_id"] == str(user)), None)


async def test_a_user_sees_own_workspaces_and_an_administrator_all(service: InProcess) -> None:
    other = await another_workspace(service.container)
    admin = await sign_in(service.container, administrator=True)
    viewer = await member(service, Role.VIEWER)
    nobody = await sign_in(service.container)
    async with (
        caller(service, admin.headers) as administering,
        caller(service, viewer.headers) as viewing,
        caller(service, nobody.headers) as alone,
    ):
        assert [(one["id"], one["role"]) for one in (await viewing.get("/workspaces")).json()["items"]] == [
            (str(service.workspace), "viewer")
        ]
        assert (await alone.get("/workspaces")).json()["items"] == []
        first = (await administering.get("/workspaces", params={"limit": 1})).json()
        rest = (await administering.get("/workspaces", params={"cursor": first["next_cursor"]})).json()
        assert {one["id"] for one in first["items"] + rest["items"]} == {str(service.workspace), str(other)}
        # Another's cursor is no cursor of one's own.
        is_problem(await viewing.get("/workspaces", params={"cursor": first["next_cursor"]}), 422, "invalid_cursor")
        # To see that it is there is not to be in it.
        is_problem(await administering.get(f"/workspaces/{other}"), 404, "workspace_not_found")
        is_problem(await viewing.get(f"/workspaces/{other}"), 404, "workspace_not_found")
        is_problem(await viewing.get(f"/workspaces/{NOBODY}"), 404, "workspace_not_found")


async def test_an_administrator_makes_a_workspace_with_an_owner_and_a_gallery(service: InProcess) -> None:
    admin = await sign_in(service.container, administrator=True)
    owner = await sign_in(service.container)
    async with caller(service, admin.headers) as administering, caller(service, owner.headers) as owning:
        # Before it there is none: what is remembered of the owner must not hide it.
        is_problem(await owning.get("/galleries"), 422, "workspace_unclear")
        made = await administering.post("/workspaces", json={"name": "shop", "owner_id": str(owner.user)})
        assert made.status_code == 201, made.text
        assert made.json()["role"] is None
        assert [one["name"] for one in (await owning.get("/galleries")).json()["items"]] == ["default"]
        mine = await administering.post("/workspaces", json={"name": "depot"})
        assert mine.json()["role"] == "owner"
        is_problem(await administering.post("/workspaces", json={"name": "depot"}), 409, "workspace_name_taken")
        unknown = await administering.post("/workspaces", json={"name": "x", "owner_id": NOBODY})
        is_problem(unknown, 404, "user_not_found")
        is_problem(await owning.post("/workspaces", json={"name": "y"}), 403, "administrator_only")


async def test_a_workspace_is_renamed_at_the_version_that_was_seen(service: InProcess) -> None:
    owner = await member(service, Role.OWNER)
    async with caller(service, owner.headers) as client:
        path = f"/workspaces/{service.workspace}"
        tag = (await client.get(path)).headers["ETag"]
        changed = await client.patch(path, json={"name": "Halle 4"}, headers={"If-Match": tag})
        assert changed.json()["name"] == "Halle 4"
        assert changed.headers["ETag"] != tag
        is_problem(await client.patch(path, json={"name": "x"}, headers={"If-Match": tag}), 412, "version_mismatch")
        is_problem(await client.patch(path, json={"name": " "}), 422, "invalid_value", field="name")


async def test_the_header_says_which_of_several_workspaces_is_meant(service: InProcess) -> None:
    other = await another_workspace(service.container)
    foreign = await another_workspace(service.container)
    user = await sign_in(service.container, roles={service.workspace: Role.VIEWER, other: Role.OWNER})
    async with caller(service, user.headers) as client:
        is_problem(await client.get("/galleries"), 422, "workspace_unclear")
        for workspace, status in ((service.workspace, 403), (other, 201)):
            answer = await client.post("/galleries", json={"name": "new"}, headers={"X-Workspace-Id": str(workspace)})
            assert answer.status_code == status
        for named in (foreign, NOBODY):
            answer = await client.get("/galleries", headers={"X-Workspace-Id": str(named)})
            is_problem(answer, 404, "workspace_not_found")
        for garbage in ("", "x", "'; --", "0" * 500):
            answer = await client.get("/galleries", headers={"X-Workspace-Id": garbage})
            is_problem(answer, 422, "invalid_value", field="X-Workspace-Id")
        # The path counts, not the header.
        both = await client.get(f"/workspaces/{other}/members", headers={"X-Workspace-Id": str(service.workspace)})
        assert both.status_code == 200
    answer = await service.client.get("/galleries", headers={"X-Workspace-Id": str(other)})
    is_problem(answer, 404, "workspace_not_found")
    assert (
        await service.client.get("/galleries", headers={"X-Workspace-Id": str(service.workspace)})
    ).status_code == 200


async def test_two_credentials_at_once_are_refused(service: InProcess) -> None:
    user = await member(service, Role.OWNER)
    is_problem(await service.client.get("/galleries", headers=user.headers), 401, "credential_invalid")
    # Another scheme is that of a proxy in front.
    assert (await service.client.get("/galleries", headers={"Authorization": "Basic eDp5"})).status_code == 200


async def test_members_are_added_by_id_and_never_by_address(service: InProcess) -> None:
    admin = await sign_in(service.container, roles={service.workspace: Role.ADMIN}, administrator=True)
    one, another, gone = [await sign_in(service.container) for _ in range(3)]
    members = f"/workspaces/{service.workspace}/members"
    async with caller(service, admin.headers) as client, caller(service, one.headers) as added:
        is_problem(await added.get(members), 404, "workspace_not_found")
        answer = await client.post(members, json={"user_id": str(one.user), "role": "viewer"})
        assert (answer.status_code, answer.json()["email"]) == (201, one.email)
        is_problem(await added.get(members), 403, "role_missing")
        # An address of somebody and one of nobody are refused alike: nobody finds out who has an account.
        for address in (another.email, f"{uuid4().hex}@example.org"):
            refused = await client.post(members, json={"email": address, "role": "operator"})
            is_problem(refused, 422, "invalid_value")
        answer = await client.post(members, json={"user_id": str(another.user), "role": "operator"})
        assert (answer.status_code, answer.json()["user_id"]) == (201, str(another.user))
        answer = await client.post(members, json={"user_id": str(one.user), "role": "admin"})
        is_problem(answer, 409, "member_exists")
        unknown = await client.post(members, json={"user_id": NOBODY, "role": "viewer"})
        is_problem(unknown, 404, "user_not_found")
        answer = await client.post(members, json={"user_id": str(gone.user), "role": "king"})
        is_problem(answer, 422, "invalid_value", field="role")
        listed = [await client.get(members, params={"limit": 2})]
        listed.append(await client.get(members, params={"cursor": listed[0].json()["next_cursor"]}))
        users = [item["user_id"] for page in listed for item in page.json()["items"]]
        assert users == sorted(map(str, (admin.user, one.user, another.user)))


async def test_a_user_is_added_by_id_by_whoever_sees_them_among_other_members(service: InProcess) -> None:
    owner = await member(service, Role.OWNER)
    stranger = await sign_in(service.container)
    seen = await another_workspace(service.container, owner.user)
    unseen = await another_workspace(service.container)
    colleague = await sign_in(service.container, roles={seen: Role.VIEWER})
    viewed = await sign_in(service.container, roles={unseen: Role.OWNER})
    mine = await sign_in(service.container, roles={service.workspace: Role.ADMIN, unseen: Role.OPERATOR})
    members = f"/workspaces/{service.workspace}/members"
    async with caller(service, owner.headers) as owning, caller(service, mine.headers) as client:
        told = []
        # Nobody's id, a stranger's, and one's of a workspace whose members the giver does not see are answered alike.
        for giving, users in ((owning, (NOBODY, stranger.user, viewed.user)), (client, (viewed.user, colleague.user))):
            for user in users:
                answer = await giving.post(members, json={"user_id": str(user), "role": "viewer"})
                told.append(is_problem(answer, 404, "user_not_found")["detail"])
        assert len(set(told)) == 1
        assert "invite" in told[0]
        answer = await owning.post(members, json={"user_id": str(colleague.user), "role": "operator"})
        assert (answer.status_code, answer.json()["email"]) == (201, colleague.email)
        assert await role_of(owning, service.workspace, viewed.user) is None


async def test_a_deleted_user_is_not_added(service: InProcess, database_url: str) -> None:
    admin = await sign_in(service.container, roles={service.workspace: Role.ADMIN}, administrator=True)
    gone = await sign_in(service.container)
    await execute(database_url, f"UPDATE users SET deleted_at = now() WHERE id = '{gone.user}'")  # noqa: S608 - an id of ours
    async with caller(service, admin.headers) as client:
        answer = await client.post(
            f"/workspaces/{service.workspace}/members", json={"user_id": str(gone.user), "role": "viewer"}
        )
        is_problem(answer, 404, "user_not_found")


async def test_nobody_reaches_above_their_own_role(service: InProcess) -> None:
    owner, admin, viewer = [await member(service, role) for role in (Role.OWNER, Role.ADMIN, Role.VIEWER)]
    new = await sign_in(service.container)
    members = f"/workspaces/{service.workspace}/members"
    async with caller(service, admin.headers) as as_admin, caller(service, owner.headers) as as_owner:
        answer = await as_admin.post(members, json={"user_id": str(new.user), "role": "owner"})
        is_problem(answer, 403, "role_missing")
        for whom in (admin.user, viewer.user):
            answer = await as_admin.patch(f"{members}/{whom}", json={"role": "owner"})
            is_problem(answer, 403, "role_missing")
        answer = await as_admin.patch(f"{members}/{owner.user}", json={"role": "viewer"})
        is_problem(answer, 403, "role_missing")
        is_problem(await as_admin.delete(f"{members}/{owner.user}"), 403, "role_missing")
        assert (await as_admin.patch(f"{members}/{viewer.user}", json={"role": "admin"})).status_code == 200
        assert (await as_owner.patch(f"{members}/{viewer.user}", json={"role": "owner"})).status_code == 200
        assert await role_of(as_owner, service.workspace, viewer.user) == "owner"
        is_problem(await as_owner.patch(f"{members}/{new.user}", json={"role": "admin"}), 404, "member_not_found")
        is_problem(await as_owner.delete(f"{members}/{new.user}"), 404, "member_not_found")


async def test_a_lost_role_and_a_lost_membership_hold_from_the_next_call(service: InProcess) -> None:
    owner, operator = await member(service, Role.OWNER), await member(service, Role.OPERATOR)
    members = f"/workspaces/{service.workspace}/members"
    async with caller(service, owner.headers) as owning, caller(service, operator.headers) as client:
        assert (await client.post("/galleries/default/people", json={})).status_code == 201
        assert (await owning.patch(f"{members}/{operator.user}", json={"role": "viewer"})).status_code == 200
        is_problem(await client.post("/galleries/default/people", json={}), 403, "role_missing")
        assert (await client.get("/galleries")).status_code == 200
        assert (await owning.delete(f"{members}/{operator.user}")).status_code == 204
        is_problem(await client.get("/galleries"), 422, "workspace_unclear")


async def test_anybody_leaves_but_the_last_owner(service: InProcess) -> None:
    owner, viewer = await member(service, Role.OWNER), await member(service, Role.VIEWER)
    members = f"/workspaces/{service.workspace}/members"
    async with caller(service, owner.headers) as owning, caller(service, viewer.headers) as viewing:
        is_problem(await viewing.delete(f"{members}/{viewer.user}"), 403, "role_missing")
        assert (await viewing.delete(f"{members}/me")).status_code == 204
        is_problem(await viewing.delete(f"{members}/me"), 404, "workspace_not_found")
        for path in ("me", str(owner.user)):
            is_problem(await owning.delete(f"{members}/{path}"), 409, "last_owner")
        is_problem(await owning.patch(f"{members}/{owner.user}", json={"role": "admin"}), 409, "last_owner")


async def test_of_two_owners_who_go_at_one_moment_one_stays(service: InProcess) -> None:
    for _ in range(5):
        workspace = await another_workspace(service.container)
        owners = [await sign_in(service.container, roles={workspace: Role.OWNER}) for _ in range(2)]
        answers = await asyncio.gather(*(self_removed(service, workspace, owner) for owner in owners))
        assert sorted(answers) == [204, 409]


async def self_removed(service: InProcess, workspace: object, owner: SignedIn) -> int:
    async with caller(service, owner.headers) as client:
        return (await client.delete(f"/workspaces/{workspace}/members/me")).status_code


async def test_a_deleted_owner_is_none_that_a_workspace_could_be_left_to(service: InProcess, database_url: str) -> None:
    owner, gone = await member(service, Role.OWNER), await member(service, Role.OWNER)
    await execute(database_url, f"UPDATE users SET deleted_at = now() WHERE id = '{gone.user}'")  # noqa: S608 - an id of ours
    async with caller(service, owner.headers) as client:
        is_problem(await client.delete(f"/workspaces/{service.workspace}/members/me"), 409, "last_owner")


async def test_an_invitation_makes_a_member_once_and_reaches_no_further_than_who_made_it(service: InProcess) -> None:
    admin = await member(service, Role.ADMIN)
    invited, late = await sign_in(service.container), await sign_in(service.container)
    invitations = f"/workspaces/{service.workspace}/invitations"
    async with (
        caller(service, admin.headers) as inviting,
        caller(service, invited.headers) as accepting,
        caller(service, late.headers) as too_late,
    ):
        is_problem(await inviting.post(invitations, json={"role": "owner"}), 403, "role_missing")
        is_problem(await accepting.post(invitations, json={"role": "viewer"}), 404, "workspace_not_found")
        body = {"role": "operator", "email": invited.email}
        refused = await inviting.post(invitations, json=body, headers={"Idempotency-Key": "once"})
        is_problem(refused, 422, "invalid_value", field="Idempotency-Key")
        made = await inviting.post(invitations, json=body)
        assert made.status_code == 201, made.text
        assert made.headers["Cache-Control"] == "no-store"
        token = {"token": made.json()["token"]}
        is_problem(await too_late.post("/auth/invitation", json=token), 422, "link_invalid")
        assert (await accepting.post("/auth/invitation", json=token)).status_code == 200
        is_problem(await accepting.post("/auth/invitation", json=token), 422, "link_invalid")
        assert await role_of(inviting, service.workspace, invited.user) == "operator"


async def test_nobody_comes_back_by_an_invitation_of_their_own(service: InProcess) -> None:
    keeper, owner = await member(service, Role.OWNER), await member(service, Role.OWNER)
    members, invitations = (f"/workspaces/{service.workspace}/{name}" for name in ("members", "invitations"))
    stranger = await sign_in(service.container)
    async with (
        caller(service, keeper.headers) as keeping,
        caller(service, owner.headers) as leaving,
        caller(service, stranger.headers) as coming,
    ):
        made = [(await leaving.post(invitations, json={"role": role})).json() for role in ("owner", "viewer")]
        assert (await keeping.delete(f"{members}/{owner.user}")).status_code == 204
        for link in made:
            for client in (leaving, coming):
                answer = await client.post("/auth/invitation", json={"token": link["token"]})
                is_problem(answer, 422, "link_invalid")
        assert (await keeping.get(invitations)).json()["items"] == []


async def test_an_invitation_is_good_as_long_as_its_maker_may_give_the_role(
    service: InProcess, database_url: str
) -> None:
    keeper, owner = await member(service, Role.OWNER), await member(service, Role.OWNER)
    members, invitations = (f"/workspaces/{service.workspace}/{name}" for name in ("members", "invitations"))
    stranger = await sign_in(service.container)
    async with (
        caller(service, keeper.headers) as keeping,
        caller(service, owner.headers) as inviting,
        caller(service, stranger.headers) as coming,
    ):
        high, low = [(await inviting.post(invitations, json={"role": role})).json() for role in ("owner", "admin")]
        # Whatever way the role is lost: by a statement of the database's owner too.
        await execute(database_url, f"UPDATE memberships SET role = 'admin' WHERE user_id = '{owner.user}'")  # noqa: S608 - an id of ours
        is_problem(await coming.post("/auth/invitation", json={"token": high["token"]}), 422, "link_invalid")
        assert (await coming.post("/auth/invitation", json={"token": low["token"]})).status_code == 200
        # One that was lowered and raised again does not find the old ones good.
        again = (await inviting.post(invitations, json={"role": "viewer"})).json()
        for role in ("viewer", "owner"):
            assert (await keeping.patch(f"{members}/{owner.user}", json={"role": role})).status_code == 200
        is_problem(await coming.post("/auth/invitation", json={"token": again["token"]}), 422, "link_invalid")


async def test_an_invitation_that_is_accepted_while_its_maker_goes_is_refused_and_neither_waits_for_ever(
    service: InProcess, database: Database
) -> None:
    owner, stranger = await member(service, Role.OWNER), await sign_in(service.container)
    async with caller(service, owner.headers) as inviting, caller(service, stranger.headers) as coming:
        made = await inviting.post(f"/workspaces/{service.workspace}/invitations", json={"role": "viewer"})
        async with database.transactions.begin() as connection, asyncio.TaskGroup() as tasks:
            # As whoever removes a member: the workspace first, and then what the member invited to.
            await connection.execute(
                select(WORKSPACES.c.id).where(WORKSPACES.c.id == service.workspace).with_for_update(key_share=True)
            )
            accepted = tasks.create_task(coming.post("/auth/invitation", json={"token": made.json()["token"]}))
            await somebody_waits(database)
            await connection.execute(delete(ONE_TIME_LINKS).where(ONE_TIME_LINKS.c.made_by == owner.user))
            await connection.commit()
    is_problem(accepted.result(), 422, "link_invalid")


async def test_open_invitations_are_listed_and_withdrawn(service: InProcess) -> None:
    owner, admin = await member(service, Role.OWNER), await member(service, Role.ADMIN)
    other = await another_workspace(service.container, owner.user)
    invitations = f"/workspaces/{service.workspace}/invitations"
    stranger = await sign_in(service.container)
    async with (
        caller(service, owner.headers) as owning,
        caller(service, admin.headers) as client,
        caller(service, stranger.headers) as coming,
    ):
        roles = ("owner", "operator", "viewer")
        made = [(await owning.post(invitations, json={"role": role})).json() for role in roles]
        first = (await client.get(invitations, params={"limit": 2})).json()
        rest = (await client.get(invitations, params={"cursor": first["next_cursor"]})).json()
        items = first["items"] + rest["items"]
        assert [(one["role"], one["made_by"]) for one in items] == [(role, str(owner.user)) for role in roles]
        assert all(link["token"] not in str(items) for link in made)
        highest, operator, _ = [f"{invitations}/{one['id']}" for one in items]
        is_problem(await client.delete(highest), 403, "role_missing")
        is_problem(
            await owning.delete(operator.replace(str(service.workspace), str(other))), 404, "invitation_not_found"
        )
        assert (await client.delete(operator)).status_code == 204
        is_problem(await client.delete(operator), 404, "invitation_not_found")
        is_problem(await coming.post("/auth/invitation", json={"token": made[1]["token"]}), 422, "link_invalid")
        assert (await coming.post("/auth/invitation", json={"token": made[0]["token"]})).status_code == 200
        assert [one["role"] for one in (await client.get(invitations)).json()["items"]] == ["viewer"]
