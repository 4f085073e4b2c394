"""Who may do what: the one table of permissions, roles and scopes.

Every route names one permission, and this says who has it. Whom it may be done to is narrower: an API key may be
limited to galleries, and nobody reaches a role or a key beyond their own.
"""

from collections.abc import Mapping
from enum import StrEnum

from domain.errors import InvalidValue


class Permission(StrEnum):
    """What a call needs. All but the first three are permissions in one workspace."""

    OPEN = "open"
    """Nothing: registering, logging in, and what a one-time link is for."""
    ACCOUNT = "account"
    """A user who is signed in; about that user alone."""
    ADMINISTER = "administer"
    """An instance administrator, who is apart from the roles in a workspace."""

    READ = "read"
    """See galleries, people, references, their images, and jobs; find faces in an image."""
    VERIFY = "verify"
    SEARCH = "search"
    LIVENESS = "liveness"
    ENROL = "enrol"
    """Make, change, merge and delete people and references."""
    EMBED = "embed"
    """Get embeddings. No role has it: it takes an API key that was given it on purpose.

    The index holds vectors that are turned by a secret rotation. As many embeddings of enrolled photographs as there
    are dimensions give it away, and fewer most of it. Whoever has the model can make them without this.
    """
    MANAGE = "manage"
    """Make, change, move and delete galleries; cancel jobs."""
    ERASE = "erase"
    """Destroy everything about a person, with a signed receipt."""
    EXPORT = "export"
    """Get everything that is kept about a person."""
    KEYS = "keys"
    """Make, rotate and revoke API keys with scopes that one may give (`SCOPE_OF_ROLE`), or that one's own key has."""
    AUDIT = "audit"
    """Read and verify the audit log."""
    MEMBERS = "members"
    """See who is a member; invite, change and remove members."""
    WORKSPACE = "workspace"
    """Rename the workspace. Owners alone have it; that they alone make and unmake owners is by their rank."""


class Scope(StrEnum):
    """What an API key may be used for."""

    ENROL = "enrol"
    VERIFY = "verify"
    SEARCH = "search"
    LIVENESS = "liveness"
    READ = "read"
    MANAGE = "manage"
    EMBED = "embed"
    """Off by default, so that an application that needs no embeddings cannot leak them."""


class Role(StrEnum):
    """What a member is in a workspace; each may do what those below it may."""

    OWNER = "owner"
    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


DEFAULT_SCOPES = frozenset(Scope) - {Scope.EMBED}

OF_SCOPE: Mapping[Scope, frozenset[Permission]] = {
    Scope.READ: frozenset({Permission.READ}),
    Scope.VERIFY: frozenset({Permission.VERIFY}),
    Scope.SEARCH: frozenset({Permission.SEARCH}),
    Scope.LIVENESS: frozenset({Permission.LIVENESS}),
    Scope.ENROL: frozenset({Permission.ENROL}),
    Scope.EMBED: frozenset({Permission.EMBED}),
    Scope.MANAGE: frozenset(
        {Permission.MANAGE, Permission.ERASE, Permission.EXPORT, Permission.KEYS, Permission.AUDIT}
    ),
}
"""What each scope lets an API key do. None of them is for members and the workspace itself: those are for users."""

_VIEWER = frozenset({Permission.READ})
_OPERATOR = _VIEWER | {Permission.VERIFY, Permission.SEARCH, Permission.LIVENESS, Permission.ENROL}
_ADMIN = _OPERATOR | {
    Permission.MANAGE,
    Permission.ERASE,
    Permission.EXPORT,
    Permission.KEYS,
    Permission.AUDIT,
    Permission.MEMBERS,
}

OF_ROLE: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: _ADMIN,
    Role.OWNER: _ADMIN | {Permission.WORKSPACE},
}
"""What each role lets a member do in its workspace."""

IN_WORKSPACE = frozenset(Permission) - {Permission.OPEN, Permission.ACCOUNT, Permission.ADMINISTER}
"""Those that are meant in one workspace."""

SCOPE_OF_ROLE: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset(),
    Role.OPERATOR: frozenset(),
    Role.ADMIN: frozenset(Scope),
    Role.OWNER: frozenset(Scope),
}
"""The scopes that a member may give to an API key."""


BEYOND_GALLERIES = frozenset({Permission.AUDIT})
"""What no API key may do that is limited to some galleries: it is about the workspace as a whole."""

_RANKS = (Role.VIEWER, Role.OPERATOR, Role.ADMIN, Role.OWNER)


def permissions_of(scopes: frozenset[Scope], *, limited: bool = False) -> frozenset[Permission]:
    """Return what an API key with these scopes may do; `limited` is one that is for some galleries alone."""
    of_scopes = frozenset[Permission]().union(*(OF_SCOPE[scope] for scope in scopes))
    return of_scopes - BEYOND_GALLERIES if limited else of_scopes


def may_give(giver: Role | None, role: Role) -> bool:
    """Tell whether a member may make somebody this, or change one who is: nobody reaches above themselves."""
    return giver is not None and _RANKS.index(role) <= _RANKS.index(giver)


def checked_role(name: str, *, field: str = "role") -> Role:
    """Return the role of this name. Raises `InvalidValue`."""
    try:
        return Role(name)
    except ValueError as error:
        raise InvalidValue(f"{field} is one of {', '.join(Role)}", field=field) from error


def checked_scopes(names: list[str], *, field: str = "scopes") -> frozenset[Scope]:
    """Return the scopes of these names. Raises `InvalidValue` for none, and for one that is not there."""
    if not names:
        raise InvalidValue("an API key needs at least one scope", field=field)
    try:
        return frozenset(map(Scope, names))
    except ValueError as error:
        raise InvalidValue(f"a scope is one of {', '.join(Scope)}", field=field) from error
