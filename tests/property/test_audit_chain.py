"""Whatever is changed in a chain, anywhere, is found, and named by its number."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.audit import (
    AUDIT_PURPOSE,
    BEGINNING,
    SEAL_PURPOSE,
    ActorKind,
    AuditAction,
    AuditEntry,
    AuditEvent,
    AuditHead,
    Origin,
    chained_bytes,
    entry_of,
    sealed_bytes,
)
from domain.audit_chain import ChainCheck, ChainReport, Fault, KnownHead
from domain.workspace import WorkspaceId
from tests.trail import KEYED_HASH

OURS = WorkspaceId(UUID(int=1))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

uuids = st.one_of(st.none(), st.integers(1, 2**128 - 1).map(lambda number: UUID(int=number)))
codes = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True)
plain = st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), codes)
events = st.builds(
    AuditEvent,
    workspace=st.just(OURS),
    action=st.sampled_from(AuditAction),
    subject=uuids,
    gallery=uuids,
    outcome=codes,
    details=st.dictionaries(codes, st.one_of(plain, st.lists(codes, max_size=3)), max_size=4),
)
origins = st.builds(
    Origin,
    kind=st.sampled_from(ActorKind),
    actor=uuids,
    network=st.sampled_from([None, "10.0.0.0/24", "2001:db8::/48"]),
    request=st.sampled_from([None, "0" * 32, "ab" * 16]),
)


def chained(
    noted: Sequence[tuple[AuditEvent, Origin]], *, behind: int = 0, before: bytes = BEGINNING
) -> list[AuditEntry]:
    made: list[AuditEntry] = []
    mac = before
    for number, (event, origin) in enumerate(noted, behind + 1):
        entry = entry_of(event, number=number, at=NOW + timedelta(seconds=number), origin=origin)
        mac = KEYED_HASH.digest(AUDIT_PURPOSE, chained_bytes(entry, mac))
        made.append(replace(entry, mac=mac))
    return made


some = st.lists(st.tuples(events, origins), min_size=1, max_size=8)
chains = some.map(chained)


def head_of(entries: Sequence[AuditEntry]) -> AuditHead:
    number, mac = entries[-1].number, entries[-1].mac
    return AuditHead(number=number, mac=mac, seal=KEYED_HASH.digest(SEAL_PURPOSE, sealed_bytes(OURS, number, mac)))


def checked(entries: Sequence[AuditEntry], head: AuditHead | None, known: KnownHead | None = None) -> ChainReport:
    check = ChainCheck(OURS, KEYED_HASH.digest, known=known)
    for entry in entries:
        check.see(entry)
    return check.end(head)


def other(value: object, field: str) -> object:
    """Something else of the same kind."""
    match value:
        case None:
            return "x" if field in {"network", "request"} else UUID(int=99)
        case UUID():
            return UUID(int=(value.int + 1) % 2**128)
        case datetime():
            return value + timedelta(microseconds=1)
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:]
        case dict():
            return {**value, "more": 1}
        case str():
            return value + "x"
        case _:
            raise AssertionError(value)


@given(chains)
def test_a_chain_that_nobody_touched_is_sound(entries: list[AuditEntry]) -> None:
    report = checked(entries, head_of(entries))
    assert report.sound
    assert report.last == KnownHead(number=len(entries), mac=entries[-1].mac)


@settings(max_examples=30)
@given(chains, st.data())
@pytest.mark.parametrize(
    "field", [one.name for one in fields(AuditEntry) if one.name not in {"number", "before", "workspace"}]
)
def test_any_change_of_any_field_of_any_entry_is_found_there(
    field: str, entries: list[AuditEntry], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    changed = list(entries)
    changed[place] = replace(changed[place], **{field: other(getattr(changed[place], field), field)})
    report = checked(changed, head_of(entries))
    assert report.findings[0].number == place + 1
    assert report.findings[0].fault is Fault.CHANGED


@given(chains, st.data())
def test_an_entry_that_is_taken_out_is_found_there(entries: list[AuditEntry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    report = checked([*entries[:place], *entries[place + 1 :]], head_of(entries))
    assert (report.findings[0].number, report.findings[0].fault) == (place + 1, Fault.REMOVED)


@given(chains, st.integers(1, 3), st.data())
def test_entries_taken_out_with_those_behind_renumbered_are_found_there(
    entries: list[AuditEntry], number: int, data: st.DataObject
) -> None:
    if len(entries) < number + 1:
        return
    place = data.draw(st.integers(0, len(entries) - number - 1))
    rest = [replace(entry, number=entry.number - number) for entry in entries[place + number :]]
    report = checked([*entries[:place], *rest], head_of(entries))
    assert report.findings[0].number == place + 1
    if len(rest) > 1:
        assert report.findings[0].fault is Fault.REMOVED


@given(chains, events, origins, st.data())
def test_an_entry_put_in_with_those_behind_renumbered_is_found_there(
    entries: list[AuditEntry], event: AuditEvent, origin: Origin, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(entries)))
    new = entry_of(event, number=place + 1, at=NOW, origin=origin, mac=bytes(32))
    behind = [replace(entry, number=entry.number + 1) for entry in entries[place:]]
    report = checked([*entries[:place], new, *behind], head_of(entries))
    assert report.findings[0].number == place + 1
    if behind:
        assert report.findings[0].fault is Fault.INSERTED


@given(chains, some, st.data())
def test_entries_put_behind_the_end_are_found_when_the_chain_has_gone_on_behind_them(
    entries: list[AuditEntry], put: list[tuple[AuditEvent, Origin]], data: st.DataObject
) -> None:
    end = len(entries)
    inserted = [
        entry_of(event, number=number, at=NOW, origin=origin, mac=data.draw(st.binary(min_size=32, max_size=32)))
        for number, (event, origin) in enumerate(put, end + 1)
    ]
    further = chained(put, behind=end + len(put), before=entries[-1].mac)
    report = checked([*entries, *inserted, *further], head_of(further))
    assert [one.number for one in report.findings] == [one.number for one in inserted]
    # And where they were taken away again, it is not pretended that they never were.
    (gap,) = checked([*entries, *further], head_of(further)).findings
    assert (gap.number, gap.until, gap.fault) == (end + 1, end + len(put), Fault.REMOVED)


@given(chains, st.data())
def test_two_entries_that_change_places_are_found(entries: list[AuditEntry], data: st.DataObject) -> None:
    if len(entries) < 2:
        return
    one, two = sorted(data.draw(st.sets(st.integers(0, len(entries) - 1), min_size=2, max_size=2)))
    changed = list(entries)
    changed[one] = replace(entries[two], number=one + 1)
    changed[two] = replace(entries[one], number=two + 1)
    assert checked(changed, head_of(entries)).findings[0].number == one + 1


@given(chains, st.data())
def test_a_tail_that_was_cut_off_is_found_by_the_head_or_by_one_kept_elsewhere(
    entries: list[AuditEntry], data: st.DataObject
) -> None:
    left = data.draw(st.integers(0, len(entries) - 1))
    cut = entries[:left]
    by_head = checked(cut, head_of(entries))
    assert (by_head.findings[0].number, by_head.findings[0].fault) == (left + 1, Fault.REMOVED)
    if not cut:
        return
    # Somebody who kept an old head can set it back: then only one kept elsewhere tells.
    assert checked(cut, head_of(cut)).sound
    known = KnownHead(number=len(entries), mac=entries[-1].mac)
    by_known = checked(cut, head_of(cut), known)
    assert (by_known.findings[0].number, by_known.findings[0].fault) == (left + 1, Fault.REMOVED)
    # And without such a head nobody can.
    number, mac = cut[-1].number, cut[-1].mac
    forged = AuditHead(number=number, mac=mac, seal=head_of(entries).seal)
    assert checked(cut, forged).findings[0].fault is Fault.HEAD


@given(chains, chains)
def test_a_chain_that_went_on_differently_does_not_fit_a_head_kept_elsewhere(
    entries: list[AuditEntry], others: list[AuditEntry]
) -> None:
    known = KnownHead(number=1, mac=entries[0].mac)
    report = checked(others, head_of(others), known)
    if others[0].mac != entries[0].mac:
        assert (report.findings[0].number, report.findings[0].fault) == (1, Fault.CHANGED)


@pytest.mark.parametrize(
    "details",
    [
        {"similarity": 0.5},
        {"name": "Ada Lovelace"},
        {"mail": "ada@example.com"},
        {"big": 2**53},
        {"deep": {"a": 1}},
        {"vector": [0.1]},
        {"bytes": b"abc"},
        {"with space": 1},
        {"null": "\x00"},
        {"long": "x" * 65},
    ],
)
def test_what_may_not_stand_there_is_refused_where_it_is_made(details: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="may not stand in the audit log"):
        AuditEvent(workspace=OURS, action=AuditAction.FACE_VERIFIED, details=details)
