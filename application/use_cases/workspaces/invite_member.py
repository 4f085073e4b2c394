from dataclasses import dataclass
from typing import final

from application.use_cases.accounts.make_link import MakeLink
from application.use_cases.accounts.new_link import MadeLink
from application.use_cases.workspaces.member import require_may_give
from domain.credential import Principal
from domain.permission import Role
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InviteMember:
    """Make an invitation to a workspace, to be handed over in whatever way one trusts: no mail is sent.

    It is good once, within seven days, for somebody who has an account and for somebody who registers with it; with
    `email` for nobody of another address. Nobody invites to a role above their own, and an invitation is good only as
    long as whoever made it may give that role.
    """

    make_link: MakeLink

    async def __call__(
        self, *, workspace: WorkspaceId, giver: Principal, role: Role, email: str | None = None
    ) -> MadeLink:
        """Return it, with the token that is shown this once. Raises `RoleMissing`."""
        require_may_give(giver, role)
        return await self.make_link(made_by=giver.user, workspace=workspace, role=role, email=email)
