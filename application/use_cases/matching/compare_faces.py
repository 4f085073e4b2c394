from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditBatch
from application.use_cases.matching.probe import Probe, read_probe
from application.use_cases.matching.refused import refusals_noted
from application.use_cases.spaces import ServedSpaces
from domain.audit import AuditAction, AuditEvent
from domain.decision import Criterion, Decision, verification_criterion
from domain.gallery import Policy, checked_rate, checked_threshold
from domain.similarity import cosine
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether two images show the same person, and what that rests on."""

    decision: Decision
    similarity: float
    """Cosine in [-1, 1]. Not a probability."""
    criterion: Criterion
    probe: Probe
    other: Probe
    model: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompareFaces:
    """Compare the largest face of one image with the largest of another. Nothing is kept, no gallery is needed."""

    spaces: ServedSpaces
    audit: AuditBatch

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        frames: Sequence[bytes],
        other_image: bytes,
        threshold: float | None = None,
        target_fmr: float | None = None,
        policy: Policy | None = None,
    ) -> Comparison:
        checked_threshold(threshold, "threshold")
        if target_fmr is not None:
            checked_rate(target_fmr, "target_fmr")
        with refusals_noted(self.audit, workspace, AuditAction.FACE_COMPARED):
            served = self.spaces.first
            probe = await read_probe(served.embedder, frames)
            other = await read_probe(served.embedder, [other_image])
        criterion = verification_criterion(
            served.calibration, policy=policy or Policy(), threshold=threshold, target_fmr=target_fmr
        )
        similarity = cosine(probe.embedding, other.embedding)
        decision = criterion.decide(similarity)
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.FACE_COMPARED,
                details={"decision": decision.outcome.value},
            )
        )
        return Comparison(
            decision=decision,
            similarity=similarity,
            criterion=criterion,
            probe=probe,
            other=other,
            model=served.model,
        )
