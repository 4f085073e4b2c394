from dataclasses import dataclass

from domain.credential import Principal
from domain.errors import RoleMissing
from domain.permission import Role, may_give
from domain.user import User
from domain.workspace import Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user in a workspace, with what they are recognised by."""

    user: User
    membership: Membership


def require_may_give(giver: Principal, *roles: Role) -> None:
    """Raise `RoleMissing` where one of the roles is above the giver's own: owners alone make and unmake owners."""
    for role in roles:
        if not may_give(giver.role, role):
            raise RoleMissing(f"your role in this workspace is below '{role.value}': you can neither give nor take it")
