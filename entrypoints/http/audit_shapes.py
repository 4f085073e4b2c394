"""The audit log on the wire."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.audit import AuditEntry
from domain.audit_chain import ChainReport, KnownHead
from domain.errors import InvalidValue


class AuditEntryShape(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to whom."""

    number: int
    at: datetime
    actor_kind: str
    """`user`, `key`, `cli`, `system` or `nobody`."""
    actor_id: UUID | None
    network: str | None
    """The network that the call came from: the first 24 bits of its address, of IPv6 the first 48."""
    request_id: str | None
    action: str
    subject_id: UUID | None
    gallery_id: UUID | None
    outcome: str
    """`ok`, or the code of the problem."""
    details: object
    mac: str


class AuditListShape(msgspec.Struct, frozen=True, kw_only=True):
    """A page of entries, newest first."""

    items: list[AuditEntryShape]
    next_cursor: str | None


class FindingShape(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with the chain."""

    number: int
    until: int
    """The last of several in a row; the same as `number`, of one."""
    fault: str
    """`changed`, `removed`, `inserted`, `unlinked` or `head`."""
    what: str


class AuditReportShape(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a chain is as it was written."""

    sound: bool
    entries: int
    findings: list[FindingShape]
    further_findings: int
    head: str | None
    """Where the chain ends, as `<number>:<mac>`: keep it elsewhere, and give it back as `head` the next time."""


def to_audit_entry(entry: AuditEntry) -> AuditEntryShape:
    """Render an entry."""
    return AuditEntryShape(
        number=entry.number,
        at=entry.at,
        actor_kind=entry.actor_kind,
        actor_id=entry.actor,
        network=entry.network,
        request_id=entry.request,
        action=entry.action,
        subject_id=entry.subject,
        gallery_id=entry.gallery,
        outcome=entry.outcome,
        details=entry.details,
        mac=entry.mac.hex(),
    )


def to_audit_report(report: ChainReport) -> AuditReportShape:
    """Render what a check found."""
    return AuditReportShape(
        sound=report.sound,
        entries=report.entries,
        findings=[
            FindingShape(number=one.number, until=one.until, fault=one.fault.value, what=one.what)
            for one in report.findings
        ],
        further_findings=report.further,
        head=None if report.last is None else head_text(report.last),
    )


def head_text(head: KnownHead) -> str:
    """Return a head as people keep it."""
    return f"{head.number}:{head.mac.hex()}"


def head_of(text: str | None) -> KnownHead | None:
    """Read what `head_text` wrote; None for None. Raises `InvalidValue`."""
    if text is None:
        return None
    number, _, mac = text.partition(":")
    try:
        return KnownHead(number=int(number), mac=bytes.fromhex(mac))
    except ValueError as error:
        raise InvalidValue("head is <number>:<mac>, as an earlier check gave it", field="head") from error
