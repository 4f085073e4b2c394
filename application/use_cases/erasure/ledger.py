"""The ledger of erasures beside the database: a database that is restored has forgotten those that came after."""

import hmac
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, final
from uuid import UUID

from application.ports.blob_store import BlobKey, BlobStore, blob_key
from application.ports.keyed_hash import KeyedHash
from domain.enrolment import ReferenceId
from domain.erasure import Erasure, ErasureId, canonical, name_bytes, person_bytes, reference_bytes
from domain.errors import LedgerUnreadable
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.workspace import WorkspaceId

LEDGER: Final = "ledger"
"""What its keys begin with."""

PURPOSE: Final = "erasure"
"""Of the keyed hash, for ids and for entries as a whole."""

DAYS_LISTED_SINGLY: Final = 60
"""Past that the whole ledger is listed at once."""

_VERSION: Final = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """One small object an erasure, in the blob store: hashes alone, under a name that sorts by time.

    Nobody without the installation's secret can tell whom an entry is about, or make one.
    """

    blobs: BlobStore
    keyed_hash: KeyedHash

    def person(self, workspace: WorkspaceId, person: PersonId) -> bytes:
        """Return what stands for a person."""
        return self.keyed_hash.digest(PURPOSE, person_bytes(workspace, person))

    def reference(self, workspace: WorkspaceId, reference: ReferenceId) -> bytes:
        """Return what stands for a reference."""
        return self.keyed_hash.digest(PURPOSE, reference_bytes(workspace, reference))

    def name(self, workspace: WorkspaceId, gallery: GalleryId, looked_up_by: bytes) -> bytes:
        """Return what stands for an `external_id` of a gallery, by what it is looked up by there."""
        return self.keyed_hash.digest(PURPOSE, name_bytes(workspace, gallery, looked_up_by))

    async def file(self, erasure: Erasure) -> None:
        """Write one down, durably; twice is once. Raises `PortUnavailable`."""
        await self.blobs.put(_key(erasure), self.written(erasure))

    async def has(self, erasure: Erasure) -> bool:
        """Whether it is written down. Raises `PortUnavailable`."""
        return await self.blobs.get(_key(erasure)) is not None

    async def lacking(self, erasures: Sequence[Erasure]) -> Sequence[Erasure]:
        """Return those of them that are not written down; their days are listed. Raises `PortUnavailable`."""
        keys = {_key(one): one for one in erasures}
        for day in sorted({_day(one.erased_at) for one in erasures}):
            async for key in self.blobs.keys(f"{LEDGER}/{day}/"):
                keys.pop(key, None)
        return list(keys.values())

    async def since(self, moment: datetime | None, *, now: datetime) -> AsyncIterator[tuple[ErasureId, BlobKey]]:
        """Walk through the names of those that were filed from that day on, by time; None: of all.

        Raises `PortUnavailable`, and `LedgerUnreadable` for a name that is none.
        """
        for prefix in _prefixes(moment, now):
            async for key in self.blobs.keys(prefix):
                yield _id_of(key), key

    async def entry(self, key: BlobKey) -> Erasure:
        """Read one. Raises `PortUnavailable`, and `LedgerUnreadable` for anything but what this installation wrote."""
        content = await self.blobs.get(key)
        if content is None:
            raise LedgerUnreadable(f"the entry {key} was there and is not any more")
        return self.read(content, str(key))

    def written(self, erasure: Erasure) -> bytes:
        """Return an entry as bytes, one line of JSON."""
        fields = {
            "version": _VERSION,
            "id": str(erasure.id),
            "workspace": str(erasure.workspace),
            "erased_at": erasure.erased_at.astimezone(UTC).isoformat(),
            "digests": [digest.hex() for digest in erasure.digests],
        }
        mac = self.keyed_hash.digest(PURPOSE, canonical(fields))
        return canonical({**fields, "mac": mac.hex()}) + b"\n"

    def read(self, content: bytes, place: str) -> Erasure:
        """Return what was written. Raises `LedgerUnreadable`, which names `place`."""
        try:
            fields = json.loads(content)
            mac = bytes.fromhex(fields.pop("mac"))
            if not hmac.compare_digest(mac, self.keyed_hash.digest(PURPOSE, canonical(fields))):
                raise LedgerUnreadable(
                    f"the entry {place} was changed, or written by another installation than this one",
                )
            if fields["version"] != _VERSION:
                raise LedgerUnreadable(f"the entry {place} was written by a newer version of facepass")
            return Erasure(
                id=ErasureId(UUID(fields["id"])),
                workspace=WorkspaceId(UUID(fields["workspace"])),
                erased_at=datetime.fromisoformat(fields["erased_at"]),
                digests=tuple(bytes.fromhex(digest) for digest in fields["digests"]),
                filed=True,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LedgerUnreadable(f"the entry {place} is not one of the ledger") from error


def day_of(key: BlobKey) -> datetime:
    """Return when the day began that an entry is filed under. Raises `LedgerUnreadable` for a name that is none."""
    try:
        return datetime.fromisoformat(key.split("/")[1]).replace(tzinfo=UTC)
    except ValueError as error:
        raise LedgerUnreadable(f"{key} lies in the ledger of erasures and is no entry of it") from error


def _key(erasure: Erasure) -> BlobKey:
    return blob_key(LEDGER, _day(erasure.erased_at), erasure.id)


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _prefixes(moment: datetime | None, now: datetime) -> list[str]:
    if moment is None:
        return [f"{LEDGER}/"]
    # A day more: clocks of several nodes differ.
    days = (now - moment).days + 2
    if not 0 <= days <= DAYS_LISTED_SINGLY:
        return [f"{LEDGER}/"]
    return [f"{LEDGER}/{_day(moment + timedelta(days=day))}/" for day in range(days + 1)]


def _id_of(key: BlobKey) -> ErasureId:
    try:
        return ErasureId(UUID(key.rpartition("/")[2]))
    except ValueError as error:
        raise LedgerUnreadable(f"{key} lies in the ledger of erasures and is no entry of it") from error
