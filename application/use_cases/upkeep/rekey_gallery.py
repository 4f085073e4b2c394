import asyncio
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditTrail
from application.ports.errors import PortBusy
from application.ports.index_states import KNOWN_WITHIN, IndexStates
from application.ports.record import Record
from application.ports.rotations import Rotation, RotationChanges, Rotations
from application.ports.transaction import Transaction
from application.use_cases.spaces import ServedSpaces
from application.use_cases.upkeep.mend_index import MendIndex
from application.use_cases.upkeep.rebuild_index import Counted, RebuildIndex
from application.use_cases.upkeep.verify_index import VerifyIndex
from domain.audit import AuditAction, AuditEvent
from domain.enrolment import ReferenceId
from domain.gallery import Gallery, GalleryId
from domain.workspace import WorkspaceId

_ROUNDS = 3
"""What another transaction held in the first is written in the second."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyGallery:
    """Turn a gallery's vectors by another secret rotation, in every index, while it is searched and enrolled into.

    Nobody is missed on the way: first every process looks by both rotations, then all that is written is turned by
    the new one and the rest written anew, then it is compared with the record, and at last the old one is looked by no
    more. Interrupted at any moment, it goes on where it was. What it is worth stands in
    `docs/decisions/0019-vectors-are-turned.md`: copies that were stolen before are worth what they were.
    """

    record: Record
    rotations: Rotations
    changes: RotationChanges
    states: IndexStates
    spaces: ServedSpaces
    rebuild: RebuildIndex
    verify: VerifyIndex
    mend: MendIndex
    audit: AuditTrail
    transaction: Transaction

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, counted: Counted = lambda _: None
    ) -> int:
        """Return how many references there were that stand by the new rotation now.

        Raises `PortBusy` where somebody else does the same, or some could not be written yet: call it again.
        """
        place = await self.record.gallery(workspace, gallery)
        rotation = await self.rotations.of(place.id, fresh=True)
        if rotation.also is None:
            begun = Rotation(writes=rotation.writes, also=rotation.writes + 1)
            rotation = await self._changed(place, rotation, begun, stage="begun", number=rotation.writes + 1)
        if rotation.also is not None and rotation.also > rotation.writes:
            # Not before every process looks by the new one too: what another writes by it would be missed there.
            await asyncio.sleep(2 * KNOWN_WITHIN)
            turned = Rotation(writes=rotation.also, also=rotation.writes)
            rotation = await self._changed(place, rotation, turned, stage="turned", number=rotation.also)
        await asyncio.sleep(2 * KNOWN_WITHIN)
        written = await self._written(place, counted)
        done = Rotation(writes=rotation.writes)
        await self._changed(place, rotation, done, stage="done", number=rotation.writes, references=written)
        return written

    async def _written(self, gallery: Gallery, counted: Counted) -> int:
        """Write all of it by the new rotation, and see that nothing is left of the old one."""
        rebuilt = await self.rebuild(workspace=gallery.workspace, gallery=gallery.id, counted=counted)
        differing = await self._differing(gallery)
        for _ in range(_ROUNDS):
            if not differing:
                return rebuilt.references
            await asyncio.sleep(KNOWN_WITHIN)
            # Whoever is enrolled or deleted at this moment differs too, and a moment later no more.
            differing &= await self._differing(gallery)
            await self.mend(workspace=gallery.workspace, gallery=gallery.id, references=sorted(differing))
            differing &= await self._differing(gallery)
        if differing:
            raise PortBusy(
                "vector_index", "some references could not be written by the new rotation yet: call it again"
            )
        return rebuilt.references

    async def _differing(self, gallery: Gallery) -> set[ReferenceId]:
        reports = [
            await self.verify(workspace=gallery.workspace, gallery=gallery.id, index=name, space=served.id)
            for name in (await self.states.now()).written
            for served in self.spaces.all
        ]
        return {one for report in reports for one in report.named}

    async def _changed(
        self, gallery: Gallery, before: Rotation, after: Rotation, *, stage: str, number: int, **counted: int
    ) -> Rotation:
        """Change it and write that down, in one transaction; `number` is that of the new rotation."""
        if not await self.changes.change(gallery.workspace, gallery.id, before, after):
            raise PortBusy("vector_index", "somebody else gives this gallery another rotation at this moment")
        self.audit.note(
            AuditEvent(
                workspace=gallery.workspace,
                action=AuditAction.GALLERY_REKEYED,
                subject=gallery.id,
                gallery=gallery.id,
                details={"stage": stage, "rotation": number, **counted},
            )
        )
        await self.transaction.commit()
        return after
