import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from application.ports.clock import Clock
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.gallery_moves import Standing
from application.ports.index_states import IndexStates
from application.ports.record import Record
from application.use_cases.galleries.compare_spaces import SAMPLE, CompareSpaces
from application.use_cases.galleries.follow_references import SWEEP_AFTER, FollowReferences
from application.use_cases.galleries.migrate_gallery import require_no_fixed_threshold, require_served
from application.use_cases.galleries.move_order import MoveOrder, MoveScope, MoveUnit
from application.use_cases.jobs.handlers import JobHandler, ReportProgress
from application.use_cases.references.reconcile import Reconciled
from application.use_cases.spaces import ServedSpaces
from domain.audit import AuditAction, AuditEvent
from domain.enrolment import ReferenceId
from domain.errors import ReferencesLeftBehind, SpaceMismatch
from domain.gallery import Gallery
from domain.job import Job

EMBEDDING = "embedding"
WRITING = "writing"
SWITCHING = "switching"
SETTLING = "settling"

_AT_ONCE = 16
"""References of one transaction: as long as they take, a cancelled job goes on."""

_SETTLED_AT_ONCE = 200

_FEW = 4
"""References that may follow while enrolments wait for the switch: a second's work, or little more."""

_LOCKED = 5.0
"""Seconds that enrolments wait at most for a switch: half of what their own statements wait by default."""

_ROUNDS = 20
"""Times that a job catches up with enrolments before it says that they come too fast."""

_ASKED = 60
_ASKED_EVERY = 0.05
"""Times, and seconds between two, that what is noted is looked at again while enrolments wait: others may be at it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MoveGallery(JobHandler):
    """Do what a job says about the move of a gallery.

    References follow one by one, whatever happens beside: what is enrolled meanwhile is found by the next round, what
    is deleted takes its templates with it. The switch is one row, changed while enrolments wait and after every
    reference has been looked at and written to the index. It may be killed anywhere: what was committed is not done
    again.
    """

    spaces: ServedSpaces
    states: IndexStates
    record: Record
    scope: MoveScope
    follow: FollowReferences
    compare: CompareSpaces
    clock: Clock

    async def __call__(self, job: Job, progress: ReportProgress) -> Mapping[str, object]:
        order = MoveOrder.of(job)
        require_served(self.spaces, order.source, order.target)
        if order.settle:
            return await self._settled(order, progress)
        await self._all_follow(order, progress, again=True)
        await self._all_written(order, progress)
        report = await self._compared(order, progress)
        switched = order.switch and await self._switched(order, progress)
        standing = await self._standing(order)
        return {
            "switched": switched,
            "references": standing.references,
            "followed": standing.followed,
            "left_behind": dict(standing.left_behind),
            "agreement": report,
        }

    async def _all_follow(self, order: MoveOrder, progress: ReportProgress, *, again: bool) -> None:
        """Let all references follow that have not been looked at; with `again`, those that could not follow too."""
        standing = await self._standing(order)
        done = standing.followed + (0 if again else sum(standing.left_behind.values()))
        after: ReferenceId | None = None
        while True:
            await progress(min(done, standing.references), standing.references, EMBEDDING)
            async with self.scope() as unit:
                lagging = await unit.templates.lagging(
                    order.workspace,
                    order.gallery,
                    order.target,
                    now=self.clock.now(),
                    after=after,
                    limit=_AT_ONCE,
                    refused=again,
                )
            if not lagging:
                return
            await self.follow(order, lagging)
            after = lagging[-1].reference
            done += len(lagging)

    async def _all_written(self, order: MoveOrder, progress: ReportProgress) -> None:
        """Hold the new space's indexes against the record, and write what they do not have.

        What is noted is nearly always all there is; but an index may have been restored, or made anew, since.
        """
        served = self.spaces.of(order.target)
        for index in served.written(await self.states.now()):
            held = {entry.reference async for entry in index.entries(order.gallery)}
            after: ReferenceId | None = None
            number = 0
            while sealed := await self.record.all_templates(
                order.workspace, order.gallery, after=after, limit=_SETTLED_AT_ONCE, space=order.target
            ):
                await progress(number, None, WRITING)
                await self._note([one.reference for one in sealed if one.reference not in held], order)
                held.difference_update(one.reference for one in sealed)
                after = sealed[-1].reference
                number += len(sealed)
            await self._note(sorted(held), order)

    async def _compared(self, order: MoveOrder, progress: ReportProgress) -> Mapping[str, object]:
        async with self.scope() as unit:
            gallery = await unit.galleries.get(order.workspace, order.gallery)
            sample = await unit.moves.sample(order.workspace, order.gallery, size=SAMPLE)
        report = await self.compare(
            gallery=gallery, source=order.source, target=order.target, sample=sample, progress=progress
        )
        async with self.scope() as unit:
            await unit.galleries.get(order.workspace, order.gallery, lock=True)
            move = await unit.moves.get(order.workspace, order.gallery, lock=True)
            if move is not None:
                told = await unit.erased.left_out(order.workspace, report)
                await unit.moves.save(replace(move, report=told))
            await unit.transaction.commit()
        return report

    async def _switched(self, order: MoveOrder, progress: ReportProgress) -> bool:
        for _ in range(_ROUNDS):
            await self._all_follow(order, progress, again=False)
            _require_all(order, await self._standing(order))
            # Most of what is noted: while others enrol there is always some more.
            await self._unwritten(order)
            await progress(0, None, SWITCHING)
            try:
                async with asyncio.timeout(_LOCKED), self.scope() as unit:
                    gallery = await unit.galleries.get(order.workspace, order.gallery, lock=True)
                    if gallery.space == order.target:
                        return True
                    if await self._has_caught_up(order, unit):
                        await self._switch(order, gallery, unit)
                        return True
            except TimeoutError:
                continue  # enrolments have waited long enough: let them pass, and begin again
        raise PortBusy("face_embedder", "references are enrolled faster than they can follow to the other model")

    async def _has_caught_up(self, order: MoveOrder, locked: MoveUnit) -> bool:
        """Let the last few follow, while the gallery is locked and no more can come; False where they are too many.

        Enrolments that were committed before the lock are waited for, until they have written the index themselves.
        """
        if not await self._written(order):
            return False
        lagging = await locked.templates.lagging(
            order.workspace, order.gallery, order.target, now=self.clock.now(), after=None, limit=_FEW + 1
        )
        if len(lagging) > _FEW:
            return False
        if lagging:
            await self.follow(order, lagging)
        return await self._written(order)

    async def _switch(self, order: MoveOrder, gallery: Gallery, locked: MoveUnit) -> None:
        if gallery.space != order.source:
            raise SpaceMismatch(f"the gallery is in {gallery.space} by now")
        require_no_fixed_threshold(gallery)
        _require_all(order, await locked.templates.standing(order.workspace, order.gallery, order.target))
        now = self.clock.now()
        await locked.galleries.save(replace(gallery, space=order.target, updated_at=now, version=gallery.version + 1))
        move = await locked.moves.get(order.workspace, order.gallery, lock=True)
        if move is not None:
            await locked.moves.save(replace(move, switched_at=now))
        locked.audit.note(_migrated(order, "switched"))
        await locked.transaction.commit()

    async def _settled(self, order: MoveOrder, progress: ReportProgress) -> Mapping[str, object]:
        done = 0
        while True:
            await progress(done, None, SETTLING)
            async with self.scope() as unit:
                changed = await unit.templates.settle(
                    order.workspace, order.gallery, order.target, limit=_SETTLED_AT_ONCE
                )
                await self._note(changed, order, unit)
            if not changed:
                break
            done += len(changed)
        async with self.scope() as unit:
            # A job that is run again finds none, and says it no second time.
            if await unit.moves.get(order.workspace, order.gallery) is not None:
                unit.audit.note(_migrated(order, "settled"))
            await unit.moves.remove(order.workspace, order.gallery)
            await unit.transaction.commit()
        await self._forget_left_behind(order, progress)
        return {"settled": done}

    async def _forget_left_behind(self, order: MoveOrder, progress: ReportProgress) -> None:
        """Take those from the index of the former space that have a template of no other."""
        after: ReferenceId | None = None
        while True:
            async with self.scope() as unit:
                page = await unit.templates.left_behind(
                    order.workspace, order.gallery, order.target, after=after, limit=_SETTLED_AT_ONCE
                )
            await self._note([one.reference for one in page.items], order)
            await progress(0, None, SETTLING)
            if page.next_after is None:
                return
            after = ReferenceId(page.next_after)

    async def _note(self, references: Sequence[ReferenceId], order: MoveOrder, unit: MoveUnit | None = None) -> None:
        """Note that these must be reconciled, and do it; what fails is repeated by the sweep."""
        if unit is None:
            async with self.scope() as own:
                return await self._note(references, order, own)
        await unit.reconciliations.note(
            order.workspace, references, space=order.source, due=self.clock.now() + SWEEP_AFTER
        )
        await unit.transaction.commit()
        if references:
            await unit.reconcile.after_commit(workspace=order.workspace, references=references)
        return None

    async def _written(self, order: MoveOrder) -> bool:
        """Reconcile whatever is noted of the gallery; False where others are slow to do their part of it.

        Raises `PortUnavailable` where an index does not take something.
        """
        refused = in_hand = False
        for _ in range(_ASKED):
            refused, in_hand = await self._unwritten(order)
            if not refused and not in_hand:
                return True
            await asyncio.sleep(_ASKED_EVERY)
        if refused:
            raise PortUnavailable("vector_index", "it does not take what is to be found in the other space")
        return False

    async def _unwritten(self, order: MoveOrder) -> tuple[bool, bool]:
        """Write what is noted; tell whether something was not taken that could be, and whether others are at some."""
        refused = in_hand = False
        after: ReferenceId | None = None
        while True:
            async with self.scope() as unit:
                noted = await unit.moves.noted(
                    order.workspace, order.gallery, now=self.clock.now(), after=after, limit=_SETTLED_AT_ONCE
                )
                if not noted:
                    return refused, in_hand
                ours = [one.reference for one in noted if not one.in_hand]
                left = await unit.reconcile(workspace=order.workspace, references=ours) if ours else Reconciled()
            refused = refused or bool(left.behind - left.damaged)
            in_hand = in_hand or len(ours) < len(noted)
            after = noted[-1].reference

    async def _standing(self, order: MoveOrder) -> Standing:
        async with self.scope() as unit:
            return await unit.templates.standing(order.workspace, order.gallery, order.target)


def _migrated(order: MoveOrder, what: str) -> AuditEvent:
    return AuditEvent(
        workspace=order.workspace,
        action=AuditAction.GALLERY_MIGRATED,
        subject=order.gallery,
        gallery=order.gallery,
        details={"step": what},
    )


def _require_all(order: MoveOrder, standing: Standing) -> None:
    left = sum(standing.left_behind.values())
    if left and not order.leave_behind:
        why = ", ".join(f"{number} {refusal}" for refusal, number in standing.left_behind.items())
        raise ReferencesLeftBehind(
            f"{left} of {standing.references} references cannot follow ({why}), and would not be found any more:"
            " say leave_behind where that is what you want"
        )
