from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import AUDIT_ENTRIES, AUDIT_HEADS
from application.ports.audit import AuditTrail
from application.ports.clock import Clock
from application.ports.keyed_hash import KeyedHash
from application.use_cases.audit.origin import current_origin
from domain.audit import BEGINNING, AuditEvent, Origin, chained_bytes
from domain.workspace import WorkspaceId

PURPOSE: Final = "audit"
"""Of the keyed hash: whoever can write to the database and has not the key cannot make an entry that fits."""


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
        """Chain what was noted, in the running transaction. Raises `PortUnavailable`."""
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
) -> None:
    """Add entries to the end of a chain, whose head is locked from here to the end of the transaction."""
    heads = AUDIT_HEADS.c
    await connection.execute(
        insert_or(AUDIT_HEADS).values(workspace_id=workspace, number=0, mac=BEGINNING).on_conflict_do_nothing()
    )
    head = (
        await connection.execute(
            select(heads.number, heads.mac).where(heads.workspace_id == workspace).with_for_update()
        )
    ).one()
    number, mac = head.number, head.mac
    rows: list[dict[str, Any]] = []
    for one in noted:
        number += 1
        mac = keyed_hash.digest(
            PURPOSE, chained_bytes(number=number, at=one.at, origin=one.origin, event=one.event, before=mac)
        )
        rows.append(
            {
                "workspace_id": workspace,
                "number": number,
                "at": one.at,
                "actor_kind": one.origin.kind,
                "actor_id": one.origin.actor,
                "network": one.origin.network,
                "request_id": one.origin.request,
                "action": one.event.action,
                "subject_id": one.event.subject,
                "gallery_id": one.event.gallery,
                "outcome": one.event.outcome,
                "details": dict(one.event.details),
                "mac": mac,
            }
        )
    await connection.execute(insert(AUDIT_ENTRIES), rows)
    await connection.execute(update(AUDIT_HEADS).where(heads.workspace_id == workspace).values(number=number, mac=mac))
