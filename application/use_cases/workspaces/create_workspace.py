from dataclasses import dataclass
from typing import final

from application.ports.accounts import UserRepository
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from application.use_cases.workspaces.new_workspace import NewWorkspace
from domain.errors import UserNotFound
from domain.user import UserId
from domain.workspace import Workspace, checked_workspace_name


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CreateWorkspace:
    """Make a workspace with its default gallery, for instance administrators.

    Its owner is the user who is named, else the administrator who makes it. Its name is unique in the installation.
    """

    new_workspace: NewWorkspace
    users: UserRepository
    notices: Notices
    transaction: Transaction

    async def __call__(self, *, name: str, owner: UserId) -> Workspace:
        """Return it. Raises `WorkspaceNameTaken` and `UserNotFound`."""
        if (await self.users.get(owner)).deleted_at is not None:
            raise UserNotFound("no such user")
        workspace, _ = await self.new_workspace(name=checked_workspace_name(name), owner=owner)
        await self.notices.tell(Topic.CREDENTIALS)
        await self.transaction.commit()
        return workspace
