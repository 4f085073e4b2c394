from typing import Any, Final, final
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import ColumnElement, Row, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.pages import page, stretch
from adapters.persistence.tables import MEMBERSHIPS, USERS
from adapters.persistence.workspace_lock import locked_workspaces
from application.ports.accounts import UserFilter, UserRepository
from application.ports.cipher import Cipher, DataKeyId, Place, WrappedKey
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import Page
from domain.audit import INSTANCE
from domain.errors import EmailTaken, LastAdministrator, LastOwner, UserNotFound, VersionMismatch
from domain.permission import Role
from domain.user import User, UserId, compared_email

PURPOSE: Final = "profile"
EMAIL_PURPOSE: Final = "email"


class _Profile(msgspec.Struct, frozen=True):
    email: str
    name: str


@final
class SqlUserRepository(UserRepository):
    """Users in PostgreSQL. Their profiles are sealed under data keys of their own, bound to their rows."""

    def __init__(self, connection: SqlConnection, cipher: Cipher, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._cipher = cipher
        self._keyed_hash = keyed_hash

    async def add(self, user: User, *, password_hash: str | None) -> None:
        key = self._cipher.new_key(DataKeyId(uuid4()), workspace=INSTANCE)
        added = await self._connection.execute(
            insert(USERS)
            .values(
                id=user.id,
                data_key_id=key.id,
                wrapped=key.wrapped,
                password=password_hash,
                created_at=user.created_at,
                **self._changeable(user, key),
            )
            # Nothing to do instead of an error, which would end the transaction: a batch goes on with the next one.
            .on_conflict_do_nothing(index_elements=[USERS.c.email_digest])
        )
        if not added.rowcount:
            raise EmailTaken("there is a user of that email address")

    async def get(self, user: UserId | str, *, lock: bool = False) -> User:
        wanted = select(USERS).where(self._is(user))
        if lock:
            # Not FOR UPDATE: that would also make whoever logs in as this user, or becomes a member, wait.
            wanted = wanted.with_for_update(key_share=True)
        row = (await self._connection.execute(wanted)).one_or_none()
        if row is None:
            raise UserNotFound("no such user")
        return self._to_user(row)

    async def password_hash(self, user: UserId) -> str | None:
        row = (await self._connection.execute(select(USERS.c.password).where(USERS.c.id == user))).one_or_none()
        if row is None:
            raise UserNotFound("no such user")
        found: str | None = row.password
        return found

    async def page(self, *, limit: int, after: UUID | None, only: UserFilter) -> Page[User]:
        listed = select(USERS)
        if only.email is not None:
            listed = listed.where(self._is(only.email))
        if only.deleted is not None:
            listed = listed.where(USERS.c.deleted_at.is_not(None) if only.deleted else USERS.c.deleted_at.is_(None))
        if only.administrator is not None:
            listed = listed.where(USERS.c.administrator.is_(only.administrator))
        found = await self._connection.execute(stretch(listed, USERS.c.id, limit=limit, after=after))
        return page(found.all(), self._to_user, limit=limit)

    async def save(self, user: User, *, password_hash: str | None = None) -> None:
        if not _administers(user):
            await self._require_other_administrators(user.id)
        this = USERS.c.id == user.id
        row = (
            await self._connection.execute(
                select(USERS.c.data_key_id, USERS.c.wrapped, USERS.c.email_digest)
                .where(this)
                .with_for_update(key_share=True)
            )
        ).one_or_none()
        if row is None:
            raise UserNotFound("no such user")
        if user.deleted_at is not None:
            await self._require_no_workspace_left(user.id)
        changed = self._changeable(user, key_of(row))
        if changed["email_digest"] != row.email_digest:
            await self._require_free(user)
        if password_hash is not None:
            changed["password"] = password_hash
        saved = await self._connection.execute(
            update(USERS).where(this, USERS.c.version == user.version - 1).values(**changed)
        )
        if not saved.rowcount:
            raise VersionMismatch("the user was changed meanwhile")

    async def _require_other_administrators(self, user: UserId) -> None:
        """Raise `LastAdministrator` where nobody but this user is one.

        All administrators are locked before their number is known: of two who are demoted at one moment, the second
        sees the first gone. Only for one who is an administrator now; whoever becomes one meanwhile changes version.
        """
        columns = USERS.c
        administer = columns.administrator & columns.deleted_at.is_(None)
        is_one = await self._connection.execute(select(exists().where(administer, columns.id == user)))
        if not is_one.scalar_one():
            return
        # In one order, so that two of these cannot wait for each other.
        locked = select(columns.id).where(administer).order_by(columns.id).with_for_update(key_share=True)
        if set((await self._connection.execute(locked)).scalars()) <= {user}:
            raise LastAdministrator("this is the last administrator: make somebody else one first")

    async def _require_no_workspace_left(self, user: UserId) -> None:
        """Raise `LastOwner` where a workspace's other members would be left without an owner who can sign in.

        A workspace that is theirs alone goes unused with them: else nobody who registered could be deleted.
        """
        columns = MEMBERSHIPS.c
        owned = select(columns.workspace_id).where(columns.user_id == user, columns.role == Role.OWNER)
        # Locked as whoever adds a member or removes an owner locks it.
        workspaces = await locked_workspaces(self._connection, owned)
        found = await self._connection.execute(
            select(columns.workspace_id, columns.role)
            .join(USERS, USERS.c.id == columns.user_id)
            .where(columns.workspace_id.in_(workspaces), columns.user_id != user, USERS.c.deleted_at.is_(None))
        )
        others = found.all()
        owners = {row.workspace_id for row in others if row.role == Role.OWNER}
        if {row.workspace_id for row in others} - owners:
            raise LastOwner("this is the last owner of a workspace with other members: make one of them owner first")

    async def _require_free(self, user: User) -> None:
        # Asked before the update: a violated constraint would end the transaction, and a race still ends in one.
        taken = exists().where(self._is(user.email), USERS.c.id != user.id)
        if (await self._connection.execute(select(taken))).scalar_one():
            raise EmailTaken("there is a user of that email address")

    def _is(self, user: UserId | str) -> ColumnElement[bool]:
        if isinstance(user, str):
            return USERS.c.email_digest == email_digest(self._keyed_hash, user)
        return USERS.c.id == user

    def _changeable(self, user: User, key: WrappedKey) -> dict[str, object]:
        profile = msgspec.json.encode(_Profile(email=user.email, name=user.name))
        return {
            "email_digest": email_digest(self._keyed_hash, user.email),
            "profile": self._cipher.seal(profile, key=key, place=_place(user.id)),
            "administrator": user.administrator,
            "updated_at": user.updated_at,
            "deleted_at": user.deleted_at,
            "last_login_at": user.last_login_at,
            "version": user.version,
        }

    def _to_user(self, row: Row[Any]) -> User:
        sealed = self._cipher.open(row.profile, key=key_of(row), place=_place(row.id))
        profile = msgspec.json.decode(sealed, type=_Profile)
        return User(
            id=UserId(row.id),
            email=profile.email,
            name=profile.name,
            administrator=row.administrator,
            has_password=row.password is not None,
            created_at=row.created_at,
            updated_at=row.updated_at,
            version=row.version,
            deleted_at=row.deleted_at,
            last_login_at=row.last_login_at,
        )


def email_digest(keyed_hash: KeyedHash, email: str) -> bytes:
    """Return what an address is found and compared by."""
    return keyed_hash.digest(EMAIL_PURPOSE, compared_email(email).encode())


def _administers(user: User) -> bool:
    return user.administrator and user.deleted_at is None


def key_of(row: Row[Any]) -> WrappedKey:
    """Return a user's wrapped data key, of a row that has its columns."""
    return WrappedKey(id=DataKeyId(row.data_key_id), workspace=INSTANCE, wrapped=row.wrapped)


def _place(user: UUID) -> Place:
    return Place(workspace=INSTANCE, subject=user, purpose=PURPOSE)
