"""Users: where they are kept, and what their passwords and tokens are made with."""

from collections.abc import AsyncIterator

from dishka import Provider, Scope, provide

from adapters.persistence.account_purge import SqlAccountPurge
from adapters.persistence.database import Database
from adapters.persistence.link_repository import SqlLinkRepository
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
    LinkRepository,
    LoginFailures,
    LoginRecord,
    SessionRepository,
    UserRepository,
)
from application.ports.passwords import CommonPasswords, PasswordHasher


class AccountProvider(Provider):
    """Repositories for each unit of work; hashes and tokens once."""

    users = provide(SqlUserRepository, provides=UserRepository, scope=Scope.REQUEST)
    sessions = provide(SqlSessionRepository, provides=SessionRepository, scope=Scope.REQUEST)
    links = provide(SqlLinkRepository, provides=LinkRepository, scope=Scope.REQUEST)
    failures = provide(SqlLoginFailures, provides=LoginFailures, scope=Scope.REQUEST)
    logins = provide(SqlLoginRecord, provides=LoginRecord, scope=Scope.REQUEST)
    signing_keys = provide(SqlSigningKeys, provides=SigningKeys, scope=Scope.REQUEST)
    purge = provide(SqlAccountPurge, provides=AccountPurge, scope=Scope.REQUEST)

    tokens = provide(JwtAccessTokens, provides=AccessTokens, scope=Scope.APP)
    common_passwords = provide(ZxcvbnCommonPasswords, provides=CommonPasswords, scope=Scope.APP)

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
