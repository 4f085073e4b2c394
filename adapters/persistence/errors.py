from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from asyncpg import InterfaceError, PostgresError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from domain.errors import (
    ExternalIdTaken,
    FacepassError,
    GalleryKept,
    GalleryNameTaken,
    GalleryNotFound,
    PersonNotFound,
    UserNotFound,
    WorkspaceNameTaken,
    WorkspaceNotFound,
)

PORT: Final = "database"

Facts = Mapping[str, tuple[type[FacepassError], str]]
"""What a violated constraint states, by its name: the error and its message."""

WRITTEN: Final[Facts] = {
    "uq_galleries_workspace_id_name": (GalleryNameTaken, "this workspace has a gallery of that name"),
    "uq_people_workspace_id_gallery_id_external_id_digest": (
        ExternalIdTaken,
        "this gallery has a person of that external_id",
    ),
    "fk_people_workspace_id_gallery_id": (GalleryNotFound, "no such gallery"),
    "fk_data_keys_workspace_id_person_id": (PersonNotFound, "no such person"),
    "fk_references_workspace_id_gallery_id_person_id": (PersonNotFound, "no such person in this gallery"),
    "fk_references_workspace_id_enrolled_for_data_key_id": (PersonNotFound, "no such person"),
    "fk_gallery_moves_workspace_id_gallery_id": (GalleryNotFound, "no such gallery"),
    "fk_answers_workspace_id_person_id": (PersonNotFound, "no such person"),
    "uq_workspaces_name": (WorkspaceNameTaken, "there is a workspace of that name"),
    "fk_memberships_workspace_id": (WorkspaceNotFound, "no such workspace"),
    "fk_memberships_user_id": (UserNotFound, "no such user"),
}
"""Of a row that was to be written."""

REMOVED: Final[Facts] = {
    "fk_people_workspace_id_gallery_id": (GalleryKept, "people are in this gallery: remove them first"),
}
"""Of a row that was to be removed."""

_CONSTRAINT_VIOLATED: Final = "23"
_REFUSED: Final = {
    "28": "it refuses the user name or password",
    "3D": "there is no such database",
    "42501": "a right is missing",
}
_PASSING: Final = {
    "08": "the connection was lost",
    "25P03": "the transaction was idle for too long",
    "40": "two transactions stood in each other's way",
    "55000": "it lets nobody in at this moment",
    "53": "it has no room for another connection, or for more data",
    "55P03": "a lock was not to be had in time",
    "57": "it is starting, shutting down, or ended the query",
    "58": "its disk or operating system failed",
}


@contextmanager
def translated(facts: Facts = WRITTEN) -> Iterator[None]:
    """Let a violated constraint end as the fact it states, and a database that is gone as `PortUnavailable`.

    A pool without a free connection is `PortBusy`: the database is there. What the driver says may hold addresses and
    values, so none of it gets into a message. A mistake of ours (a query that cannot be parsed, say) stays what it is.
    """
    try:
        yield
    except (DBAPIError, PostgresError) as error:
        raise _meaning(error, facts) or error from error
    except PoolTimeout as error:
        raise PortBusy(PORT, "all connections are in use") from error
    except TimeoutError as error:
        raise PortUnavailable(PORT, "it did not answer in time") from error
    except (OSError, InterfaceError) as error:
        raise PortUnavailable(PORT, "it cannot be reached") from error


def violation(constraint: str, facts: Facts = WRITTEN) -> FacepassError:
    """Return what it means that this constraint is violated."""
    error, message = facts[constraint]
    return error(message)


def _meaning(error: DBAPIError | PostgresError, facts: Facts) -> Exception | None:
    cause = error.driver_exception if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None) or ""
    if state.startswith(_CONSTRAINT_VIOLATED):
        name = getattr(cause, "constraint_name", None) or ""
        return violation(name, facts) if name in facts else None
    for known, reason in _REFUSED.items():
        if state.startswith(known):
            return PortRejected(PORT, reason)
    for known, reason in _PASSING.items():
        if state.startswith(known):
            return PortUnavailable(PORT, reason)
    if isinstance(cause, InterfaceError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return PortUnavailable(PORT, "the connection was lost")
    return None
