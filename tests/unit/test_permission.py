from itertools import pairwise
from uuid import UUID

import pytest

from domain.credential import ApiKeyId, Principal
from domain.errors import (
    AdministratorOnly,
    CredentialMissing,
    FacepassError,
    InvalidValue,
    RoleMissing,
    ScopeMissing,
    WorkspaceUnclear,
)
from domain.permission import (
    DEFAULT_SCOPES,
    IN_WORKSPACE,
    OF_ROLE,
    OF_SCOPE,
    Permission,
    Role,
    Scope,
    checked_role,
    checked_scopes,
    permissions_of,
)
from domain.user import UserId
from domain.workspace import WorkspaceId

WORKSPACE = WorkspaceId(UUID(int=1))
EVERY_SCOPE = frozenset(Scope)


def a_user(role: Role | None, *, administrator: bool = False) -> Principal:
    """Somebody who is signed in; without a role they have named no workspace."""
    own = {Permission.ACCOUNT, *([Permission.ADMINISTER] if administrator else [])}
    return Principal(
        workspace=None if role is None else WORKSPACE,
        permissions=frozenset(own) | (frozenset() if role is None else OF_ROLE[role]),
        user=UserId(UUID(int=2)),
        role=role,
    )


def a_key(*scopes: Scope) -> Principal:
    held = frozenset(scopes)
    return Principal(workspace=WORKSPACE, permissions=permissions_of(held), key=ApiKeyId(UUID(int=3)), scopes=held)


def refused(principal: Principal, permission: Permission) -> type[FacepassError] | None:
    try:
        principal.require(permission)
    except FacepassError as error:
        return type(error)
    return None


def test_every_role_and_scope_stands_in_the_table() -> None:
    assert set(OF_ROLE) == set(Role)
    assert set(OF_SCOPE) == set(Scope)


def test_each_role_may_do_what_those_below_it_may_and_more() -> None:
    ladder = [OF_ROLE[role] for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN, Role.OWNER)]
    assert all(below < above for below, above in pairwise(ladder))


def test_what_a_role_or_scope_allows_is_allowed_in_a_workspace_alone() -> None:
    for allowed in (*OF_ROLE.values(), *OF_SCOPE.values()):
        assert allowed <= IN_WORKSPACE


def test_every_permission_in_a_workspace_can_be_had_by_somebody() -> None:
    assert frozenset().union(*OF_ROLE.values(), *OF_SCOPE.values()) == IN_WORKSPACE


def test_no_role_may_get_embeddings_and_no_key_may_without_being_given_it() -> None:
    assert all(Permission.EMBED not in allowed for allowed in OF_ROLE.values())
    assert Scope.EMBED not in DEFAULT_SCOPES
    assert Permission.EMBED not in permissions_of(EVERY_SCOPE - {Scope.EMBED})


def test_no_key_may_change_who_is_a_member() -> None:
    assert permissions_of(EVERY_SCOPE).isdisjoint({Permission.MEMBERS, Permission.WORKSPACE})


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize("permission", Permission)
def test_a_user_may_do_what_the_table_says(role: Role | None, permission: Permission) -> None:
    found = refused(a_user(role), permission)
    if permission in {Permission.OPEN, Permission.ACCOUNT}:
        assert found is None
    elif permission is Permission.ADMINISTER:
        assert found is AdministratorOnly
    elif role is None:
        assert found is WorkspaceUnclear
    else:
        assert found is (None if permission in OF_ROLE[role] else RoleMissing)


@pytest.mark.parametrize("permission", sorted(IN_WORKSPACE))
def test_an_administrator_without_a_role_may_do_nothing_in_a_workspace(permission: Permission) -> None:
    assert refused(a_user(None, administrator=True), permission) is WorkspaceUnclear
    assert refused(a_user(None, administrator=True), Permission.ADMINISTER) is None


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("permission", Permission)
def test_a_key_may_do_what_its_scopes_say(scope: Scope, permission: Permission) -> None:
    found = refused(a_key(scope), permission)
    if permission is Permission.OPEN or permission in OF_SCOPE[scope]:
        assert found is None
    elif permission in {Permission.ACCOUNT, Permission.ADMINISTER}:
        assert found is CredentialMissing
    else:
        assert found is ScopeMissing


def test_names_are_told_where_one_is_wrong() -> None:
    assert checked_role("admin") is Role.ADMIN
    assert checked_scopes(["read", "verify"]) == {Scope.READ, Scope.VERIFY}
    with pytest.raises(InvalidValue, match="owner, admin, operator, viewer"):
        checked_role("root")
    for names in ([], ["everything"]):
        with pytest.raises(InvalidValue):
            checked_scopes(names)
