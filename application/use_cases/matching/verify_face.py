from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditBatch
from application.ports.cipher import Cipher
from application.ports.record import Record, SealedTemplate
from application.use_cases.matching.probe import Probe, read_probe
from application.use_cases.matching.refused import refusals_noted
from application.use_cases.matching.templates import opened
from application.use_cases.spaces import ServedSpaces
from domain.audit import AuditAction, AuditEvent
from domain.decision import Criterion, Decision, verification_criterion
from domain.enrolment import ReferenceId
from domain.errors import ReferenceNotFound
from domain.gallery import Gallery, GalleryId, checked_rate, checked_threshold
from domain.person import PersonId, checked_external_id
from domain.similarity import similarities
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Whether the probe is this person, and what that rests on."""

    decision: Decision
    similarity: float
    """Cosine to the person's best reference, in [-1, 1]. Not a probability."""
    criterion: Criterion
    best: SealedTemplate
    probe: Probe
    model: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyFace:
    """Compare a face with all references of one person, or with one reference (1:1).

    The best reference counts, and a person with several shares the target rate among them. `uncertain`
    is what lies between the thresholds of FMR 1e-2 and of the target. Reads the record alone: it works
    while the index is down.
    """

    spaces: ServedSpaces
    record: Record
    cipher: Cipher
    audit: AuditBatch

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        frames: Sequence[bytes],
        gallery: GalleryId | str,
        claimed: PersonId | str | None = None,
        reference: ReferenceId | None = None,
        threshold: float | None = None,
        target_fmr: float | None = None,
    ) -> Verification:
        """Name the claimed person by id or `external_id`, or one `reference`.

        Raises `GalleryNotFound`, `PersonNotFound`, `PersonMerged`, `ReferenceNotFound` before the image
        is looked at, then what `read_probe` raises.
        """
        checked_threshold(threshold, "threshold")
        if target_fmr is not None:
            checked_rate(target_fmr, "target_fmr")
        if isinstance(claimed, str):
            checked_external_id(claimed)
        with refusals_noted(
            self.audit, workspace, AuditAction.FACE_VERIFIED, subject=claimed or reference, gallery=gallery
        ):
            place, sealed = await self._claimed(workspace, gallery, claimed, reference)
            served = self.spaces.of(place.space)
            probe = await read_probe(served.embedder, frames)
            scores = similarities(probe.embedding, opened(self.cipher, sealed, place))
        best = max(range(len(sealed)), key=lambda index: (scores[index], -sealed[index].reference.int))
        criterion = verification_criterion(
            served.calibration,
            policy=place.policy,
            references=len(sealed),
            threshold=threshold,
            target_fmr=target_fmr,
        )
        similarity = float(scores[best])
        decision = criterion.decide(similarity)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.FACE_VERIFIED,
                subject=sealed[best].person,
                gallery=place.id,
                details={"decision": decision.outcome.value, "faces": len(probe.image.faces)},
            )
        )
        return Verification(
            decision=decision,
            similarity=similarity,
            criterion=criterion,
            best=sealed[best],
            probe=probe,
            model=served.model,
        )

    async def _claimed(
        self,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        claimed: PersonId | str | None,
        reference: ReferenceId | None,
    ) -> tuple[Gallery, Sequence[SealedTemplate]]:
        if reference is not None:
            place = await self.record.gallery(workspace, gallery)
            found = await self.record.templates(workspace, place.id, [reference], space=place.space, consented=True)
            if not found:
                raise ReferenceNotFound(f"no reference {reference} in this gallery")
            return place, found
        if claimed is None:
            raise ReferenceNotFound("nobody was named to compare with")
        place, found = await self.record.templates_of(workspace, gallery, claimed)
        if not found:
            raise ReferenceNotFound("the person has no references to compare with: enrol one first")
        return place, found
