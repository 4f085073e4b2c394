"""Who did what to whom: entries in chains that cannot be changed unseen."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

from domain.workspace import WorkspaceId

INSTANCE = WorkspaceId(UUID(int=0))
"""The chain of what belongs to no workspace: users, logins, calls that nobody was recognised in."""

BEGINNING = b"\x00" * 32
"""What the first entry of a chain is chained to."""

AUDIT_PURPOSE = "audit"
SEAL_PURPOSE = "audit-head"
"""Of the keyed hashes: whoever can write to the database and has not the key cannot make an entry that fits."""

OK = "ok"
"""The outcome of what was done; else it is the code of the error."""

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LARGEST = 2**53 - 1
_UNTOLD = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}|[0-9a-f]{16,64}")


class AuditAction(StrEnum):
    """What was done, or refused: the thing, then what became of it."""

    CALL_REFUSED = "call.refused"
    CALLS_REFUSED = "calls.refused"
    """So many more that they were counted, and not written down one by one."""

    USER_REGISTERED = "user.registered"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_DELETED = "user.deleted"
    USER_RESTORED = "user.restored"
    USER_LOGGED_IN = "user.logged_in"
    USER_LOGIN_FAILED = "user.login_failed"
    USER_LOGGED_OUT = "user.logged_out"
    USER_PASSWORD_CHANGED = "user.password_changed"  # noqa: S105 - a name
    USER_LINK_MADE = "user.link_made"
    SESSION_ENDED = "session.ended"
    SESSION_TOKEN_REUSED = "session.token_reused"  # noqa: S105 - a name

    WORKSPACE_CREATED = "workspace.created"
    WORKSPACE_UPDATED = "workspace.updated"
    MEMBER_ADDED = "member.added"
    MEMBER_CHANGED = "member.changed"
    MEMBER_REMOVED = "member.removed"
    MEMBER_INVITED = "member.invited"
    INVITATION_WITHDRAWN = "invitation.withdrawn"
    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"

    GALLERY_CREATED = "gallery.created"
    GALLERY_UPDATED = "gallery.updated"
    GALLERY_DELETED = "gallery.deleted"
    GALLERY_MIGRATED = "gallery.migrated"
    GALLERY_REKEYED = "gallery.rekeyed"
    PERSON_CREATED = "person.created"
    PERSON_UPDATED = "person.updated"
    PERSON_DELETED = "person.deleted"
    PERSON_MERGED = "person.merged"
    PERSON_UNMERGED = "person.unmerged"
    PERSON_ERASED = "person.erased"
    PERSON_EXPORTED = "person.exported"
    REFERENCE_ENROLLED = "reference.enrolled"
    REFERENCE_DELETED = "reference.deleted"
    IMAGE_READ = "image.read"
    FACE_VERIFIED = "face.verified"
    FACE_COMPARED = "face.compared"
    FACE_SEARCHED = "face.searched"
    FACE_EMBEDDED = "face.embedded"
    JOB_STARTED = "job.started"
    JOB_CANCELLED = "job.cancelled"

    INDEX_MIGRATED = "index.migrated"
    INDEX_DROPPED = "index.dropped"
    INDEX_REBUILT = "index.rebuilt"
    AUDIT_EXPORTED = "audit.exported"
    MASTER_KEY_ROTATED = "master_key.rotated"
    SIGNING_KEY_ROTATED = "signing_key.rotated"
    BACKUP_MADE = "backup.made"
    BACKUP_RESTORED = "backup.restored"


class ActorKind(StrEnum):
    """What kind of somebody it was."""

    USER = "user"
    KEY = "key"
    CLI = "cli"
    """The local operator."""
    SYSTEM = "system"
    """The service itself: jobs, upkeep."""
    NOBODY = "nobody"
    """A call in which nobody was recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who a piece of work is done for, and where that came from."""

    kind: ActorKind
    actor: UUID | None = None
    """The user's or the key's id."""
    network: str | None = None
    """See `network_of`."""
    request: str | None = None
    """See `untold_request_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What is to be written down. Ids, numbers and codes alone: what cannot be deleted must not identify.

    Raises `ValueError` for anything else: it is a mistake of ours, not of who calls.
    """

    workspace: WorkspaceId
    """Whose chain it stands in; `INSTANCE` for what belongs to none."""
    action: AuditAction
    subject: UUID | None = None
    """The person, reference, key, user ... it was done to."""
    gallery: UUID | None = None
    outcome: str = OK
    details: Mapping[str, object] = field(default_factory=dict)
    """A little more: never an image, vector, token, password, `external_id` or name.

    By name: an id or a code (`A-Z a-z 0-9 _ . : -`, 64 at most), a whole number below 2^53, a truth value, None, or a
    list of ids and codes. These come back from the database as they went there, whatever it makes of JSON.
    """

    def __post_init__(self) -> None:
        for name, value in (("outcome", self.outcome), *self.details.items()):
            if not (_is_code(name) and (_is_plain(value) or _is_list(value))):
                raise ValueError(f"{self.action}: {name!r} holds what may not stand in the audit log")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One link of a chain, as it is kept. What was tampered with can be anything, so nothing here is checked."""

    workspace: WorkspaceId
    number: int
    """From 1, without a gap, in the order in which entries were chained."""
    at: datetime
    """When it happened; of two entries that stand next to each other the later one may have happened first."""
    actor_kind: str
    actor: UUID | None
    network: str | None
    request: str | None
    action: str
    subject: UUID | None
    gallery: UUID | None
    outcome: str
    details: object
    mac: bytes
    """Keyed hash over `chained_bytes`: 32 bytes."""
    before: bytes | None = None
    """The `mac` of the one that stands before it now; None where none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The end of a chain, as it says of itself."""

    number: int
    mac: bytes
    seal: bytes
    """Keyed hash over the two (`sealed_bytes`): who cannot make it cannot set the head back."""


def entry_of(event: AuditEvent, *, number: int, at: datetime, origin: Origin, mac: bytes = b"") -> AuditEntry:
    """Return what is kept of an event."""
    return AuditEntry(
        workspace=event.workspace,
        number=number,
        at=at,
        actor_kind=origin.kind.value,
        actor=origin.actor,
        network=origin.network,
        request=origin.request,
        action=event.action.value,
        subject=event.subject,
        gallery=event.gallery,
        outcome=event.outcome,
        details=dict(event.details),
        mac=mac,
    )


def begins_chain(entry: AuditEntry) -> bool:
    """Tell whether it says that the workspace in whose chain it stands was made."""
    return entry.action == AuditAction.WORKSPACE_CREATED and entry.subject == entry.workspace


def fields_of(entry: AuditEntry, before: bytes | None) -> dict[str, object]:
    """Return an entry as JSON has it, without its `mac`: all that this is the keyed hash of.

    Times are written to the microsecond, in UTC, as the database keeps them.
    """
    return {
        "before": None if before is None else before.hex(),
        "workspace_id": str(entry.workspace),
        "number": entry.number,
        "at": entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor_kind": entry.actor_kind,
        "actor_id": _text(entry.actor),
        "network": entry.network,
        "request_id": entry.request,
        "action": entry.action,
        "subject_id": _text(entry.subject),
        "gallery_id": _text(entry.gallery),
        "outcome": entry.outcome,
        "details": entry.details,
    }


def chained_bytes(entry: AuditEntry, before: bytes) -> bytes:
    """Return what an entry's `mac` is the keyed hash of: all of it, and the `mac` of the one before it.

    JSON with sorted names and no spaces, so that there is one way to write it (the idea of RFC 8785).
    """
    return json.dumps(fields_of(entry, before), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def sealed_bytes(workspace: WorkspaceId, number: int, mac: bytes) -> bytes:
    """Return what a head's seal is the keyed hash of: which entry is the last one of a chain."""
    return b"%s %d %s" % (str(workspace).encode(), number, mac.hex().encode())


@lru_cache(maxsize=4096)
def network_of(address: str | None) -> str | None:
    """Return the network that an address is in: its first 24 bits, of IPv6 the first 48; None for no address.

    An address points at a household or a person and an entry can never be deleted, so the last part is left out.
    """
    if address is None:
        return None
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, 24 if found.version == 4 else 48), strict=False))  # noqa: PLR2004 - IPv4


def untold_request_id(request_id: str | None) -> str | None:
    """Return a request's id where it is a plain random one; None else: a client may have put a name into its own."""
    return request_id if request_id is not None and _UNTOLD.fullmatch(request_id) else None


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _is_code(value: object) -> bool:
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def _is_plain(value: object) -> bool:
    return value is None or _is_code(value) or (isinstance(value, int) and -_LARGEST <= value <= _LARGEST)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_code, value))
