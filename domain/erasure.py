"""Erasing somebody for good: what is said of it, and what is remembered of it."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NewType
from uuid import UUID

from domain.errors import PersonNotFound
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId

ErasureId = NewType("ErasureId", UUID)

RECEIPT_KIND = "facepass-erasure-receipt/1"

ERASED_SINCE = "the person was erased since"
"""In the place of what a job did for somebody."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

ELSEWHERE = (
    "the audit log keeps ids and numbers: it cannot be changed, and names nobody",
    "files and log of the database keep what was deleted, sealed data and ids, until it has overwritten them",
    "those of the vector index, the database or another, keep its vectors as long: they are turned and not sealed",
    "backups made before keep their sealed data until they expire: one that is restored erases again before it serves",
)
"""What an erasure does not reach, as every receipt says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """How much the record holds of somebody, those merged into them included."""

    people: int = 0
    keys: int = 0
    references: int = 0
    templates: int = 0
    """More than references where a gallery moves to another model."""
    images: int = 0
    answers: int = 0
    """Remembered for calls that are sent again."""

    @property
    def nothing(self) -> bool:
        """Whether there is none of it."""
        return self == Holdings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What was still to be removed when a receipt was written: noted, and repeated until it is done."""

    references: int = 0
    """With an entry in an index or an image in the blob store that may still be there; no key opens the image."""
    ledger: bool = False
    """Whether the erasure has still to be written to the ledger beside the database."""
    jobs: int = 0
    """Enrolments of many people that had not ended: their files are sealed apart, and may show anybody."""

    @property
    def nothing(self) -> bool:
        """Whether all is done."""
        return self == Waiting()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was destroyed, and when. Ids and numbers alone: nothing in it tells who it was."""

    id: ErasureId
    workspace: WorkspaceId
    gallery: GalleryId
    person: PersonId
    erased_at: datetime
    destroyed: Holdings
    index_entries: Mapping[str, int]
    """Those that are known to be gone, by index."""
    waiting: Waiting

    def statement(self) -> dict[str, object]:
        """Return it as it is signed and shown."""
        gone, left = self.destroyed, self.waiting
        return {
            "kind": RECEIPT_KIND,
            "id": str(self.id),
            "workspace_id": str(self.workspace),
            "gallery_id": str(self.gallery),
            "person_id": str(self.person),
            "erased_at": self.erased_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "destroyed": {
                "people": gone.people,
                "keys": gone.keys,
                "references": gone.references,
                "templates": gone.templates,
                "images": gone.images,
                "answers": gone.answers,
                "index_entries": dict(self.index_entries),
            },
            "still_being_removed": {"references": left.references, "ledger": left.ledger, "jobs": left.jobs},
            "remains": list(ELSEWHERE),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """That somebody was erased, as the database and the ledger beside it remember it."""

    id: ErasureId
    """Sorts by time."""
    workspace: WorkspaceId
    erased_at: datetime
    digests: Sequence[bytes]
    """Keyed hashes of the ids that are gone: the person's first, then of those merged into them, then of references.

    Behind them those of the names that these people had.
    """
    receipt: Mapping[str, object] | None = field(default=None, compare=False)
    """The signed one; None for an erasure that is known from the ledger alone."""
    filed: bool = False
    """Whether the ledger beside the database has it."""


def canonical(statement: Mapping[str, object]) -> bytes:
    """Return a statement in the one form that is signed: JSON, names sorted, no spaces, ASCII."""
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def ids_in(told: object) -> frozenset[UUID]:
    """Return every id in what was told, JSON."""
    return frozenset(UUID(one) for one in _ID.findall(json.dumps(told)))


def without(told: Mapping[str, object], ids: Collection[UUID]) -> Mapping[str, object]:
    """Return what was told, JSON, without the entries of lists that have one of these ids in them.

    An entry with an `index` keeps its place: a problem stands there then; outside of lists null does.
    """
    return {name: _without(value, frozenset(ids)) for name, value in told.items()}


def _without(value: object, ids: frozenset[UUID]) -> object:
    if isinstance(value, Mapping):
        return without(value, ids)
    if not isinstance(value, list):
        return None if ids_in(value) & ids else value
    kept: list[object] = []
    for one in value:
        if not ids_in(one) & ids:
            kept.append(one)
        elif isinstance(one, Mapping) and "index" in one:
            kept.append({"index": one["index"], "problem": {"code": PersonNotFound.code, "detail": ERASED_SINCE}})
    return kept


def person_bytes(workspace: WorkspaceId, person: PersonId) -> bytes:
    """Return what the keyed hash of an erased person is made of."""
    return b"person" + workspace.bytes + person.bytes


def name_bytes(workspace: WorkspaceId, gallery: GalleryId, looked_up_by: bytes) -> bytes:
    """Return what the keyed hash of an erased person's `external_id` is made of, by what it is looked up by."""
    return b"name" + workspace.bytes + gallery.bytes + looked_up_by


def reference_bytes(workspace: WorkspaceId, reference: UUID) -> bytes:
    """Return what the keyed hash of an erased reference is made of."""
    return b"reference" + workspace.bytes + reference.bytes
