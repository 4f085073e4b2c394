from dataclasses import dataclass, replace
from typing import final

from application.ports.accounts import LinkRepository, UserRepository
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.notices import Notices, Topic
from application.ports.transaction import Transaction
from domain.audit import INSTANCE, AuditAction, AuditEvent
from domain.errors import VersionMismatch
from domain.user import User, UserId, checked_email, checked_name


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateUser:
    """Change an account's email address, name, or whether it is an administrator; what is left out stays.

    The last administrator stays one; links for passwords that an administrator made are good no longer once they are
    none. With `If-Match` the change is made only to the version that was seen.
    """

    users: UserRepository
    links: LinkRepository
    notices: Notices
    audit: AuditTrail
    transaction: Transaction
    clock: Clock

    async def __call__(
        self,
        *,
        user: UserId,
        email: str | None = None,
        name: str | None = None,
        administrator: bool | None = None,
        version: int | None = None,
    ) -> User:
        found = await self.users.get(user)
        if version is not None and version != found.version:
            raise VersionMismatch(f"the user is at version {found.version}, not {version}: read them again")
        changed = replace(
            found,
            email=found.email if email is None else checked_email(email),
            name=found.name if name is None else checked_name(name),
            administrator=found.administrator if administrator is None else administrator,
            updated_at=self.clock.now(),
            version=found.version + 1,
        )
        await self.users.save(changed)
        if found.administrator and not changed.administrator:
            await self.links.withdraw_of(user)
        await self.notices.tell(Topic.CREDENTIALS)
        fields = [field for field in ("email", "name", "administrator") if _of(found, field) != _of(changed, field)]
        details: dict[str, object] = {"fields": fields}
        if changed.administrator != found.administrator:
            details["administrator"] = changed.administrator
        self.audit.note(AuditEvent(workspace=INSTANCE, action=AuditAction.USER_UPDATED, subject=user, details=details))
        await self.transaction.commit()
        return changed


def _of(user: User, field: str) -> object:
    return getattr(user, field)
