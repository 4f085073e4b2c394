import asyncio
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    CursorResult,
    DateTime,
    LargeBinary,
    Text,
    Uuid,
    bindparam,
    cast,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import PORT
from adapters.persistence.tables import AUDIT_ENTRIES, AUDIT_HEADS
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.errors import PortBusy
from application.ports.keyed_hash import KeyedHash
from application.use_cases.audit.origin import current_origin
from domain.audit import (
    AUDIT_PURPOSE,
    BEGINNING,
    SEAL_PURPOSE,
    AuditEntry,
    AuditEvent,
    Origin,
    chained_bytes,
    entry_of,
    sealed_bytes,
)
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What is to be chained: an event, for whom it happened, and when."""

    event: AuditEvent
    origin: Origin
    at: datetime


@final
class SqlAuditTrail(AuditTrail):
    """Entries in PostgreSQL, chained by `write`, which the request's transaction calls just before it commits."""

    def __init__(self, connection: SqlConnection, keyed_hash: KeyedHash, clock: Clock) -> None:
        self._connection = connection
        self._keyed_hash = keyed_hash
        self._clock = clock
        self._noted: list[Noted] = []

    def note(self, event: AuditEvent) -> None:
        self._noted.append(Noted(event=event, origin=current_origin(), at=self._clock.now()))

    async def write(self) -> None:
        """Chain what was noted, in the running transaction. Raises `PortUnavailable`.

        Nothing may be locked after it: whoever holds the head of a chain waits for nothing but the heads behind it.
        """
        noted, self._noted = self._noted, []
        # In one order, so that two transactions that write to the same chains cannot wait for each other.
        for workspace in sorted({one.event.workspace for one in noted}):
            await chain(
                self._connection,
                self._keyed_hash,
                workspace,
                [one for one in noted if one.event.workspace == workspace],
            )

    def forget(self) -> None:
        """Forget what was noted: the transaction is rolled back."""
        self._noted.clear()


async def chain(
    connection: SqlConnection, keyed_hash: KeyedHash, workspace: WorkspaceId, noted: Sequence[Noted]
) -> AuditEntry:
    """Add entries to the end of a chain and return the last, in two round trips, three for the first of a chain.

    The head is locked from here to the end of the transaction. Whatever somebody else did to the end of a chain, the
    service goes on, and never mends it, so that `facepass audit verify` tells: a head that was changed keeps its
    broken seal, and numbers that were taken behind it are passed over.

    Raises `PortUnavailable`, and `PortBusy` where somebody else takes these very numbers at this moment.
    """
    head = (await _locked(connection, workspace)).one_or_none()
    if head is None:
        await _begin(connection, keyed_hash, workspace)
        head = (await _locked(connection, workspace)).one()
    sound = hmac.compare_digest(head.seal, _seal(keyed_hash, workspace, head.number, head.mac))
    number, mac = (head.number, head.mac) if head.number < _FAR else await _last(connection, workspace)
    while True:
        made = await _made(keyed_hash, noted, behind=number, before=mac)
        last = made[-1]
        seal = _seal(keyed_hash, workspace, last.number, last.mac) if sound else head.seal
        head_now = {
            "chain": workspace,
            "first": number + 1,
            "last": last.number,
            "last_mac": last.mac,
            "seal_now": seal,
        }
        try:
            written = await connection.execute(_WRITE, {**head_now, **_columns(made)})
        except IntegrityError as error:
            raise PortBusy(PORT, "somebody else writes to the end of the audit log", retry_after=1.0) from error
        if written.scalar_one():
            return last
        number = await _taken(connection, workspace, behind=number, room=len(made))


async def _made(keyed_hash: KeyedHash, noted: Sequence[Noted], *, behind: int, before: bytes) -> Sequence[AuditEntry]:
    """Chain entries with the numbers behind `behind` to the one whose `mac` is `before`."""
    made: list[AuditEntry] = []
    mac = before
    for number, one in enumerate(noted, behind + 1):
        if (number - behind) % _BREATH == 0:
            await asyncio.sleep(0)  # others of the event loop go first
        entry = entry_of(one.event, number=number, at=one.at, origin=one.origin)
        mac = keyed_hash.digest(AUDIT_PURPOSE, chained_bytes(entry, mac))
        made.append(replace(entry, mac=mac))
    return made


async def is_there(connection: SqlConnection, entry: AuditEntry) -> bool:
    """Tell whether an entry was committed, once whoever holds its chain has ended."""
    await _locked(connection, entry.workspace)
    found = await connection.execute(
        select(_ENTRY.mac).where(_ENTRY.workspace_id == entry.workspace, _ENTRY.number == entry.number)
    )
    return found.scalar_one_or_none() == entry.mac


async def _locked(connection: SqlConnection, workspace: WorkspaceId) -> CursorResult[Any]:
    return await connection.execute(
        select(_HEAD.number, _HEAD.mac, _HEAD.seal).where(_HEAD.workspace_id == workspace).with_for_update()
    )


async def _begin(connection: SqlConnection, keyed_hash: KeyedHash, workspace: WorkspaceId) -> None:
    """Make the head of a chain, unless another transaction does at this moment.

    Where there are entries already, somebody has taken the head away: what is made in its place has no good seal.
    """
    number, mac = await _last(connection, workspace)
    seal = b"" if number else _seal(keyed_hash, workspace, number, mac)
    row = {"workspace_id": workspace, "number": number, "mac": mac, "seal": seal}
    await connection.execute(insert_or(AUDIT_HEADS).values(row).on_conflict_do_nothing())


async def _last(connection: SqlConnection, workspace: WorkspaceId) -> tuple[int, bytes]:
    """Return number and `mac` of the last entry of a chain whose head says nothing of it."""
    found = await connection.execute(
        select(_ENTRY.number, _ENTRY.mac)
        .where(_ENTRY.workspace_id == workspace, _ENTRY.number.between(1, _FAR - 1))
        .order_by(_ENTRY.number.desc())
        .limit(1)
    )
    last = found.one_or_none()
    return (0, BEGINNING) if last is None else (last.number, last.mac)


async def _taken(connection: SqlConnection, workspace: WorkspaceId, *, behind: int, room: int) -> int:
    """Return the first number that is taken behind `behind` and has `room` free ones behind itself.

    Not the highest there is: that may be the highest there can be.
    """
    following = func.lead(_ENTRY.number).over(order_by=_ENTRY.number).label("following")
    taken = select(_ENTRY.number, following).where(_ENTRY.workspace_id == workspace, _ENTRY.number > behind).subquery()
    with_room = taken.c.following.is_(None) | (taken.c.following - taken.c.number > room)
    found = await connection.execute(select(taken.c.number).where(with_room).order_by(taken.c.number).limit(1))
    number: int = found.scalar_one()
    return number


def _seal(keyed_hash: KeyedHash, workspace: WorkspaceId, number: int, mac: bytes) -> bytes:
    return keyed_hash.digest(SEAL_PURPOSE, sealed_bytes(workspace, number, mac))


def _columns(entries: Sequence[AuditEntry]) -> dict[str, list[object]]:
    return {
        "number": [one.number for one in entries],
        "at": [one.at for one in entries],
        "actor_kind": [one.actor_kind for one in entries],
        "actor_id": [one.actor for one in entries],
        "network": [one.network for one in entries],
        "request_id": [one.request for one in entries],
        "action": [one.action for one in entries],
        "subject_id": [one.subject for one in entries],
        "gallery_id": [one.gallery for one in entries],
        "outcome": [one.outcome for one in entries],
        "details": [json.dumps(one.details) for one in entries],
        "mac": [one.mac for one in entries],
    }


_BREATH: Final = 100
"""Entries that are made in one go: a few milliseconds of the event loop."""

_FAR: Final = 2**62
"""A number that no chain comes to: a head beyond it was set by somebody, and cannot be set any further for ever."""

_ENTRY: Final = AUDIT_ENTRIES.c
_HEAD: Final = AUDIT_HEADS.c

_TYPES: Final[Mapping[str, TypeEngine[Any]]] = {
    "number": BigInteger(),
    "at": DateTime(timezone=True),
    "actor_kind": Text(),
    "actor_id": Uuid(),
    "network": Text(),
    "request_id": Text(),
    "action": Text(),
    "subject_id": Uuid(),
    "gallery_id": Uuid(),
    "outcome": Text(),
    "details": Text(),
    "mac": LargeBinary(),
}


def _write() -> Any:  # noqa: ANN401 - SQLAlchemy's own types
    """One statement, and the same one for however many entries: they come as an array a column.

    It says whether it wrote them: all of them, or none where one of their numbers is taken.
    """
    of_chain = bindparam("chain", type_=Uuid())
    first, last = bindparam("first", type_=BigInteger()), bindparam("last", type_=BigInteger())
    taken = exists().where(_ENTRY.workspace_id == of_chain, _ENTRY.number.between(first, last))
    new = (
        func.unnest(*(bindparam(name, type_=ARRAY(kind)) for name, kind in _TYPES.items()))
        .table_valued(*(Column(name, kind) for name, kind in _TYPES.items()), name="new")
        .render_derived()
    )
    values = {name: cast(new.c[name], JSONB) if name == "details" else new.c[name] for name in _TYPES}
    written = (
        insert(AUDIT_ENTRIES)
        .from_select(["workspace_id", *_TYPES], select(of_chain.label("workspace_id"), *values.values()).where(~taken))
        .returning(_ENTRY.number)
        .cte("written")
    )
    wrote = select(written.c.number).exists()
    moved = (
        update(AUDIT_HEADS)
        .where(_HEAD.workspace_id == of_chain, _HEAD.number < last, wrote)
        .values(number=last, mac=bindparam("last_mac"), seal=bindparam("seal_now"))
        .cte("moved")
    )
    return select(wrote).add_cte(moved)


_WRITE: Final = _write()
