from dataclasses import dataclass, field
from typing import final

from application.ports.access_tokens import AccessTokens
from application.ports.clock import Clock
from application.ports.credentials import Credentials, Standing
from application.ports.notices import Listener
from application.use_cases.keys.remembered import Remembered
from domain.credential import Principal
from domain.errors import CredentialInvalid, WorkspaceNotFound
from domain.permission import OF_ROLE, SCOPE_OF_ROLE, Permission
from domain.user import SessionId, UserId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticateUser:
    """Tell whose call this is, from its access token, and what they may do in the workspace that is meant.

    The token says who; what they may do is looked up, so that an ended session, a deleted user and a lost role end it
    at once. Without a workspace the only one of the user is meant.
    """

    credentials: Credentials
    tokens: AccessTokens
    clock: Clock
    listener: Listener
    _known: Remembered[tuple[UserId, SessionId], Standing] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing that is remembered."""
        object.__setattr__(self, "_known", Remembered[tuple[UserId, SessionId], Standing](self.listener))

    async def __call__(self, token: str, *, workspace: WorkspaceId | None) -> Principal:
        """Return the principal of a token.

        Raises `CredentialInvalid`, and `WorkspaceNotFound` where the user is no member of the workspace.
        """
        now = self.clock.now()
        claims = await self.tokens.read(token, now=now)
        bearer = (claims.user, claims.session)
        standing = self._known.get(bearer)
        if standing is None:
            since = self._known.notices
            standing = await self.credentials.standing(claims.user, claims.session)
            if standing is not None:
                self._known.keep(bearer, standing, since=since)
        if standing is None or now >= standing.ends_at:
            raise CredentialInvalid("this access token is not known, or no longer good")
        meant = workspace
        if meant is None and len(standing.roles) == 1:
            (meant,) = standing.roles
        permissions = {Permission.ACCOUNT}
        if standing.administrator:
            permissions.add(Permission.ADMINISTER)
        role = None
        if meant is not None:
            role = standing.roles.get(meant)
            if role is None:
                raise WorkspaceNotFound("no such workspace, or you are no member of it")
            permissions |= OF_ROLE[role]
        return Principal(
            workspace=meant,
            permissions=frozenset(permissions),
            user=claims.user,
            session=claims.session,
            role=role,
            scopes=frozenset() if role is None else SCOPE_OF_ROLE[role],
        )
