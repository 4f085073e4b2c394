from contextlib import suppress
from dataclasses import dataclass
from typing import final

from application.ports.accounts import MembershipRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.workspaces.member import Member, require_may_give
from domain.audit import AuditAction, AuditEvent
from domain.credential import Principal
from domain.errors import UserNotFound
from domain.permission import OF_ROLE, Permission, Role
from domain.user import User, UserId
from domain.workspace import Membership, WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AddMember:
    """Make a user a member of a workspace, by id.

    Instance administrators may add everybody, others whom they see among the members of another workspace: everybody
    else is invited, whether or not there is such an account. Nobody gives a role above their own: owners alone make
    owners.
    """

    users: UserRepository
    memberships: MembershipRepository
    audit: AuditTrail
    notices: Notices
    transaction: Transaction
    clock: Clock

    async def __call__(self, *, workspace: WorkspaceId, giver: Principal, user: UserId, role: Role) -> Member:
        """Return the new member.

        Raises `RoleMissing`, `MemberExists`, and `UserNotFound` also for a user whom the giver does not know.
        """
        require_may_give(giver, role)
        found = await self._known(giver, user)
        membership = Membership(workspace=workspace, user=found.id, role=role, created_at=self.clock.now())
        await self.memberships.add(membership)
        self.audit.note(
            AuditEvent(
                workspace=workspace, action=AuditAction.MEMBER_ADDED, subject=found.id, details={"role": role.value}
            )
        )
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
        return Member(user=found, membership=membership)

    async def _known(self, giver: Principal, user: UserId) -> User:
        """Return a user whom the giver may add. Of all others nothing is told, not even that they are there."""
        unknown = UserNotFound("there is no user whom you may add by this id: invite them instead")
        if Permission.ADMINISTER not in giver.permissions and not await self._seen(giver, user):
            raise unknown
        with suppress(UserNotFound):
            found = await self.users.get(user)
            if found.deleted_at is None:
                return found
        raise unknown

    async def _seen(self, giver: Principal, user: UserId) -> bool:
        """Tell whether the giver sees this user among the members of a workspace."""
        if giver.user is None:
            return False
        mine = await self.memberships.of_user(giver.user)
        seen = {one.workspace for one in mine if Permission.MEMBERS in OF_ROLE[one.role]}
        return any(one.workspace in seen for one in await self.memberships.of_user(user))
