"""Users: where they are kept, and what their passwords and tokens are made with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dishka import AsyncContainer, Provider, Scope, provide, provide_all

from adapters.persistence.account_purge import SqlAccountPurge
from adapters.persistence.database import Database
from adapters.persistence.link_repository import SqlInvitationRepository, SqlLinkRepository
from adapters.persistence.login_failures import SqlLoginFailures
from adapters.persistence.login_record import SqlLoginRecord
from adapters.persistence.session_repository import SqlSessionRepository
from adapters.persistence.signing_keys import SqlSigningKeyRecord, SqlSigningKeys
from adapters.persistence.user_repository import SqlUserRepository
from adapters.security.access_tokens import JwtAccessTokens
from adapters.security.passwords import Argon2PasswordHasher, ZxcvbnCommonPasswords
from application.ports.access_tokens import AccessTokens, SigningKeyRecord, SigningKeys
from application.ports.accounts import (
    AccountPurge,
    InvitationRepository,
    LinkRepository,
    LoginFailures,
    LoginRecord,
    SessionRepository,
    UserRepository,
)
from application.ports.passwords import CommonPasswords, PasswordHasher
from application.use_cases.accounts.accept_invitation import AcceptInvitation
from application.use_cases.accounts.attempts import Attempts
from application.use_cases.accounts.change_password import ChangePassword
from application.use_cases.accounts.create_user import CreateUser
from application.use_cases.accounts.create_users import CreateUsers
from application.use_cases.accounts.delete_user import DeleteUser
from application.use_cases.accounts.end_session import EndSession
from application.use_cases.accounts.get_user import GetUser
from application.use_cases.accounts.issue_tokens import IssueTokens
from application.use_cases.accounts.list_sessions import ListSessions
from application.use_cases.accounts.list_users import ListUsers
from application.use_cases.accounts.log_in import LogIn
from application.use_cases.accounts.log_out import LogOut
from application.use_cases.accounts.make_administrator import MakeAdministrator
from application.use_cases.accounts.make_link import MakeLink
from application.use_cases.accounts.new_link import NewLink
from application.use_cases.accounts.new_password import NewPassword
from application.use_cases.accounts.new_signing_key import NewSigningKey
from application.use_cases.accounts.purge_accounts import PurgeAccounts
from application.use_cases.accounts.refresh_tokens import RefreshTokens
from application.use_cases.accounts.register import Register
from application.use_cases.accounts.reset_password import ResetPassword
from application.use_cases.accounts.restore_user import RestoreUser
from application.use_cases.accounts.rotate_signing_key import RotateSigningKey
from application.use_cases.accounts.show_account import ShowAccount
from application.use_cases.accounts.show_link import ShowLink
from application.use_cases.accounts.take_invitation import TakeInvitation
from application.use_cases.accounts.update_user import UpdateUser
from domain.user import Registration
from entrypoints.settings import Settings


class AccountProvider(Provider):
    """Repositories for each unit of work; hashes and tokens once."""

    users = provide(SqlUserRepository, provides=UserRepository, scope=Scope.REQUEST)
    sessions = provide(SqlSessionRepository, provides=SessionRepository, scope=Scope.REQUEST)
    links = provide(SqlLinkRepository, provides=LinkRepository, scope=Scope.REQUEST)
    invitations = provide(SqlInvitationRepository, provides=InvitationRepository, scope=Scope.REQUEST)
    failures = provide(SqlLoginFailures, provides=LoginFailures, scope=Scope.REQUEST)
    logins = provide(SqlLoginRecord, provides=LoginRecord, scope=Scope.REQUEST)
    signing_keys = provide(SqlSigningKeys, provides=SigningKeys, scope=Scope.REQUEST)
    purge = provide(SqlAccountPurge, provides=AccountPurge, scope=Scope.REQUEST)

    use_cases = provide_all(
        AcceptInvitation,
        Attempts,
        ChangePassword,
        CreateUser,
        DeleteUser,
        EndSession,
        GetUser,
        IssueTokens,
        ListSessions,
        ListUsers,
        LogIn,
        LogOut,
        MakeAdministrator,
        MakeLink,
        NewLink,
        NewPassword,
        NewSigningKey,
        PurgeAccounts,
        RefreshTokens,
        Register,
        ResetPassword,
        RestoreUser,
        RotateSigningKey,
        ShowAccount,
        ShowLink,
        TakeInvitation,
        UpdateUser,
        scope=Scope.REQUEST,
    )

    tokens = provide(JwtAccessTokens, provides=AccessTokens, scope=Scope.APP)
    common_passwords = provide(ZxcvbnCommonPasswords, provides=CommonPasswords, scope=Scope.APP)

    @provide(scope=Scope.APP)
    def registration(self, settings: Settings) -> Registration:
        """Say who may register."""
        return settings.registration

    @provide(scope=Scope.APP)
    def create_users(self, container: AsyncContainer) -> CreateUsers:
        """Give each of several a unit of work of its own."""

        @asynccontextmanager
        async def creation() -> AsyncIterator[CreateUser]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(CreateUser)

        return CreateUsers(creation=creation)

    @provide(scope=Scope.APP)
    def signing_key_record(self, database: Database) -> SigningKeyRecord:
        """Read past transactions."""
        return SqlSigningKeyRecord(database.reads)

    @provide(scope=Scope.APP)
    async def password_hasher(self) -> AsyncIterator[PasswordHasher]:
        """Hash in threads of its own."""
        hasher = Argon2PasswordHasher()
        try:
            await hasher.prepare()
            yield hasher
        finally:
            await hasher.aclose()
