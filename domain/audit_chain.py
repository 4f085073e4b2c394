"""Whether a chain of audit entries is as it was written; and where not, at which entry, and what was done there."""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import final

from domain.audit import (
    AUDIT_PURPOSE,
    BEGINNING,
    SEAL_PURPOSE,
    AuditEntry,
    AuditHead,
    begins_chain,
    chained_bytes,
    sealed_bytes,
)
from domain.workspace import WorkspaceId

FINDINGS_KEPT = 1000
"""Of a chain that was made anew from some entry on, every one behind it is wrong: the first ones say it all."""

_RUN = 16
"""Entries in a row that do not fit, after which no more is tried to tell why."""

_REMOVED_AT_ONCE = 16
"""Entries that may have been removed in one place, with those behind renumbered, for that to be recognised as such."""

Digest = Callable[[str, bytes], bytes]
"""The keyed hash: purpose and data."""


class Fault(StrEnum):
    """What is wrong with an entry, or with several in a row."""

    CHANGED = "changed"
    """It is not what was written, or was written by somebody without the key."""
    REMOVED = "removed"
    """It is not there."""
    INSERTED = "inserted"
    """It was put between, or behind, those that were written."""
    UNLINKED = "unlinked"
    """It cannot be checked: what stood before it was changed or is gone."""
    HEAD = "head"
    """The entry is there, and the head of the chain says something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong."""

    number: int
    """Of the entry; the first, of several."""
    until: int
    """The last of them; the same, of one."""
    fault: Fault
    what: str
    """A sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """Where a chain ended when it was last looked at, as somebody kept it elsewhere."""

    number: int
    mac: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """What became of a check."""

    entries: int
    findings: tuple[Finding, ...]
    """By number, `FINDINGS_KEPT` at most; those about the end of the chain come last."""
    further: int
    """More of them."""
    last: KnownHead | None
    """Where the chain ends now: to be kept elsewhere. None for an empty one."""

    @property
    def sound(self) -> bool:
        """Tell whether nothing was found."""
        return not self.findings


@final
class ChainCheck:
    """Walks along a chain: `see` every entry by number, then `end` with the head."""

    def __init__(
        self, workspace: WorkspaceId, digest: Digest, *, known: KnownHead | None = None, begins: bool = False
    ) -> None:
        """Begin.

        Args:
            workspace: whose chain it is.
            digest: what it was made with.
            known: what it is held to as well, where it was looked at before.
            begins: whether its first entry must say that the workspace was made.
        """
        self._workspace = workspace
        self._digest = digest
        self._known = known
        self._begins = begins
        self._known_found: bytes | None = None
        self._findings: list[Finding] = []
        self._further = 0
        self._run: list[Finding] = []
        """Entries in a row that do not fit."""
        self._lost = False
        """Whether there are too many of them to tell why."""
        self._mac = BEGINNING
        self._shift = 0
        """How far the numbers are from those that the entries were made with."""
        self._good = (0, BEGINNING)
        """The last entry that fitted: the number that it was made with, and its `mac`."""
        self.entries = 0
        self.last = 0
        """The highest number seen."""

    def see(self, entry: AuditEntry) -> None:
        """Check the next one."""
        self.entries += 1
        if entry.number <= self.last:
            self._find(entry.number, Fault.INSERTED, "its number is another's already, or no entry's at all")
            return
        gap = entry.number > self.last + 1
        if gap:
            self._end_run()
            self._find(self.last + 1, Fault.REMOVED, "it is not there", until=entry.number - 1)
        if self._known is not None and entry.number == self._known.number:
            self._known_found = entry.mac
        if self._fits(entry, entry.number - self._shift, self._mac) or self._explained(entry):
            self._end_run()
            self._lost = False
            self._good = (entry.number - self._shift, entry.mac)
            self._check_beginning(entry)
        else:
            self._run.append(_broken(entry.number, unlinked=gap or self._lost or bool(self._run)))
            if len(self._run) > _RUN:
                self._lost = True
                self._end_run()
        self.last, self._mac = entry.number, entry.mac

    def end(self, head: AuditHead | None, *, untold: Sequence[WorkspaceId] = ()) -> ChainReport:
        """Check that the chain ends where its head says, and where it ended when it was last looked at.

        `untold` are workspaces of which it must say that they were made, and does not.
        """
        self._end_run()
        if untold:
            what = f"one that says that workspace {untold[0]} was made is not there; {len(untold)} are missed in all"
            self._find(1, Fault.REMOVED, what, until=max(self.last, 1))
        self._check_head(head)
        if self._known is not None:
            self._check_known(self._known)
        return ChainReport(
            entries=self.entries,
            findings=tuple(self._findings),
            further=self._further,
            last=KnownHead(number=self.last, mac=self._mac) if self.last else None,
        )

    def _fits(self, entry: AuditEntry, number: int, before: bytes) -> bool:
        made = self._digest(AUDIT_PURPOSE, chained_bytes(replace(entry, number=number), before))
        return hmac.compare_digest(made, entry.mac)

    def _explained(self, entry: AuditEntry) -> bool:
        """Tell whether it is ours all the same: those before it in the run were put in, or some taken out."""
        if not (self._run or self._lost):
            return False
        number, mac = self._good
        if self._fits(entry, entry.number - self._shift, mac):
            what = "it was put behind the end of the chain, which went on behind it"
            self._run = [replace(one, fault=Fault.INSERTED, what=what) for one in self._run]
            return True
        if self._lost:
            return False
        if self._fits(entry, number + 1, mac):
            self._run = [
                replace(one, fault=Fault.INSERTED, what="it was put in, and those behind it were given new numbers")
                for one in self._run
            ]
            self._shift = entry.number - (number + 1)
            return True
        for removed in range(1, _REMOVED_AT_ONCE + 1):
            if self._fits(entry, entry.number - self._shift + removed, self._mac):
                first = self._run[0]
                what = f"{removed} of those from here on taken out, and those behind were given new numbers"
                self._run[0] = replace(first, fault=Fault.REMOVED, what=what)
                self._shift -= removed
                return True
        return False

    def _end_run(self) -> None:
        """Take over what was found in a row."""
        for one in self._run:
            self._add(one)
        self._run = []

    def _check_beginning(self, entry: AuditEntry) -> None:
        """Find a chain that was begun anew: the service can do that, and cannot make a workspace a second time."""
        number, _ = self._good
        if self._begins and number == 1 and not begins_chain(entry):
            what = "the whole chain before it: the first entry says that the workspace was made, and this one does not"
            self._find(entry.number, Fault.REMOVED, what)

    def _check_head(self, head: AuditHead | None) -> None:
        if self._begins and not self.last and (head is None or not head.number):
            self._find(1, Fault.REMOVED, "the whole chain is not there, and that of a workspace is never empty")
        if head is None:
            if self.last:
                self._find(self.last, Fault.HEAD, "the chain has no head: that is not there any more")
            return
        if head.number > self.last:
            self._find(self.last + 1, Fault.REMOVED, "the chain's head says that it was there", until=head.number)
        elif head.number < self.last:
            self._find(head.number + 1, Fault.INSERTED, "it stands behind the end of the chain", until=self.last)
        elif not hmac.compare_digest(head.mac, self._mac):
            self._find(head.number, Fault.HEAD, "the head of the chain was made for another entry")
        seal = self._digest(SEAL_PURPOSE, sealed_bytes(self._workspace, head.number, head.mac))
        if not hmac.compare_digest(seal, head.seal):
            self._find(head.number, Fault.HEAD, "the head of the chain was set by somebody without the key")

    def _check_known(self, known: KnownHead) -> None:
        if known.number > self.last:
            self._find(
                self.last + 1, Fault.REMOVED, "it was there when the chain was last looked at", until=known.number
            )
        elif self._known_found is not None and not hmac.compare_digest(self._known_found, known.mac):
            self._find(known.number, Fault.CHANGED, "another one stood there when the chain was last looked at")

    def _find(self, number: int, fault: Fault, what: str, *, until: int | None = None) -> None:
        self._add(Finding(number=number, until=number if until is None else until, fault=fault, what=what))

    def _add(self, finding: Finding) -> None:
        if len(self._findings) < FINDINGS_KEPT:
            self._findings.append(finding)
        else:
            self._further += 1


def _broken(number: int, *, unlinked: bool) -> Finding:
    if unlinked:
        what = "it cannot be checked: what stood before it was changed or is gone"
        return Finding(number=number, until=number, fault=Fault.UNLINKED, what=what)
    return Finding(
        number=number, until=number, fault=Fault.CHANGED, what="it is not what was written, or nobody with the key did"
    )
