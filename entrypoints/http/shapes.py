"""Answers as they go out."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from application.ports.gallery_moves import LeftBehind
from application.ports.record import SealedTemplate
from application.use_cases.galleries.get_gallery import GalleryState
from application.use_cases.galleries.get_migration import Migration
from application.use_cases.matching.compare_faces import Comparison
from application.use_cases.matching.search_faces import Candidate, SearchedFace, SearchResult
from application.use_cases.matching.verify_face import Verification
from application.use_cases.people.get_person import PersonState
from application.use_cases.references.enrol_references import Enrolled
from domain.decision import Criterion, Decision, Outcome
from domain.enrolment import Reference
from domain.face import Analysis, Box, Face
from domain.gallery import Gallery, Policy
from domain.person import Person
from domain.quality import Quality
from entrypoints.http.job_shapes import JobShape, to_job
from entrypoints.http.problems import Problem, Rejected, rejected_of

_SIMILARITY_DIGITS = 6
_PIXEL_DIGITS = 2
_RATE_DIGITS = 4


class BoxShape(msgspec.Struct, frozen=True, kw_only=True):
    """Pixels of the upright image, (0, 0) at its top left."""

    left: float
    top: float
    width: float
    height: float


class PlacedBoxShape(msgspec.Struct, frozen=True, kw_only=True):
    """Pixels of the upright image, and the same normalised to 0..1."""

    left: float
    top: float
    width: float
    height: float
    normalised: BoxShape


class PointShape(msgspec.Struct, frozen=True, kw_only=True):
    """Pixels of the upright image."""

    x: float
    y: float


class LandmarksShape(msgspec.Struct, frozen=True, kw_only=True):
    """Five points; left and right as seen in the image."""

    left_eye: PointShape
    right_eye: PointShape
    nose: PointShape
    left_mouth: PointShape
    right_mouth: PointShape


class PoseShape(msgspec.Struct, frozen=True, kw_only=True):
    """Degrees, good to about ten."""

    yaw: float
    pitch: float
    roll: float


class QualityShape(msgspec.Struct, frozen=True, kw_only=True):
    """A score in 0..1 and what lowers it, worst first."""

    score: float
    reasons: list[str]


class DecisionShape(msgspec.Struct, frozen=True, kw_only=True):
    """`match`, `no_match` or `uncertain`, and why where it is not plain."""

    outcome: str
    reasons: list[str]


class TargetShape(msgspec.Struct, frozen=True, kw_only=True):
    """The error rate that the threshold was derived from."""

    kind: str
    """`fmr` or `fpir`."""
    value: float


class DetectedFaceShape(msgspec.Struct, frozen=True, kw_only=True):
    """One face of an image."""

    box: PlacedBoxShape
    landmarks: LandmarksShape
    confidence: float
    pose: PoseShape
    quality: QualityShape


class ImageShape(msgspec.Struct, frozen=True, kw_only=True):
    """The upright image's size in pixels."""

    width: int
    height: int


class DetectedShape(msgspec.Struct, frozen=True, kw_only=True):
    """Every face of an image, largest first."""

    image: ImageShape
    faces: list[DetectedFaceShape]
    model: str
    took_ms: float


class EmbeddedFaceShape(msgspec.Struct, frozen=True, kw_only=True):
    """A face with its embedding of length 1."""

    box: PlacedBoxShape
    quality: QualityShape
    embedding: list[float]
    model: str


class EmbeddedShape(msgspec.Struct, frozen=True, kw_only=True):
    """Every face of an image with its embedding, largest first."""

    faces: list[EmbeddedFaceShape]
    took_ms: float


class ProbeShape(msgspec.Struct, frozen=True, kw_only=True):
    """The face that was asked about."""

    box: PlacedBoxShape
    quality: QualityShape
    liveness: None = None


class PersonRefShape(msgspec.Struct, frozen=True, kw_only=True):
    """Who."""

    id: UUID
    external_id: str | None


class VerifiedShape(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the probe is the person claimed; `verified` is true for `match` alone."""

    verified: bool
    decision: DecisionShape
    similarity: float
    """Raw cosine in -1..1; not a probability."""
    threshold: float | None
    """`similarity >= threshold` matches; null where the pack's data does not carry the target."""
    threshold_source: str
    """`request`, `gallery` or `pack`."""
    threshold_target: TargetShape | None
    false_match_rate: float | None
    person: PersonRefShape | None
    reference_id: UUID | None
    probe: ProbeShape
    other: ProbeShape | None = None
    """The face of the second image, where one was sent in place of a person."""
    model: str
    took_ms: float


class MatchShape(msgspec.Struct, frozen=True, kw_only=True):
    """A person who may be the probe."""

    person: PersonRefShape
    reference_id: UUID
    outcome: str
    similarity: float
    margin: float | None
    """Distance to the next person; null where there is none."""


class SearchedFaceShape(msgspec.Struct, frozen=True, kw_only=True):
    """One face of the probe image, and who it may be."""

    box: PlacedBoxShape
    quality: QualityShape
    liveness: None = None
    decision: DecisionShape
    matches: list[MatchShape]


class SearchedShape(msgspec.Struct, frozen=True, kw_only=True):
    """Who the faces are; a stranger has no matches."""

    faces: list[SearchedFaceShape]
    threshold: float | None
    threshold_source: str
    threshold_target: TargetShape | None
    false_positive_identification_rate: float | None
    references: int
    model: str
    query_time_ms: float
    took_ms: float


class PolicyShape(msgspec.Struct, frozen=True, kw_only=True):
    """What a gallery asks for."""

    target_fmr: float
    target_fpir: float
    verification_threshold: float | None
    search_threshold: float | None
    refused_reasons: list[str]
    keep_images: bool
    hide_uncertain: bool
    retention_days: int | None
    consent_expires_at: datetime | None


class CapacityShape(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the gallery has outgrown its pack."""

    references: int
    expected_fnir: float | None
    """Share of searches for enrolled people that would not match; null beyond the pack's data."""
    outgrown: bool


class GalleryShape(msgspec.Struct, frozen=True, kw_only=True):
    """A gallery."""

    id: UUID
    name: str
    space: str
    policy: PolicyShape
    version: int
    created_at: datetime
    updated_at: datetime
    capacity: CapacityShape | None = None


class PersonShape(msgspec.Struct, frozen=True, kw_only=True):
    """A person."""

    id: UUID
    gallery_id: UUID
    external_id: str | None
    metadata: dict[str, str]
    version: int
    merged_into: UUID | None
    retention_days: int | None
    consent_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    erase_after: datetime | msgspec.UnsetType | None = msgspec.UNSET
    """When they are erased by themselves, where one person is asked for; null for never."""


class ReferenceShape(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolled face."""

    id: UUID
    person_id: UUID
    quality: QualityShape
    box: BoxShape
    filename: str | None
    has_image: bool
    searchable: bool
    """False while the index could not be reached; it is written as soon as it can."""
    created_at: datetime


class EnrolledShape(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each image."""

    person: PersonShape
    accepted: list[ReferenceShape]
    rejected: list[Rejected]


class GalleryListShape(msgspec.Struct, frozen=True, kw_only=True):
    """A page of galleries."""

    items: list[GalleryShape]
    next_cursor: str | None


class MigrationShape(msgspec.Struct, frozen=True, kw_only=True):
    """A gallery on its way from one model to another."""

    gallery_id: UUID
    space: str
    """Where the gallery is now."""
    source: str
    target: str
    phase: str
    """`running`, `stopped`, `prepared` or `switched`."""
    references: int
    followed: int
    """Those that have a template of the target."""
    lagging: int
    """Those that were not looked at yet."""
    left_behind: dict[str, int]
    """Those that could not follow, by code; `/migration/left-behind` lists them."""
    report: dict[str, Any] | None
    """How the decisions of the two models compare; null before that was looked at."""
    job: JobShape | None
    """The last one; null where it is not kept any more."""
    switched_at: datetime | None
    asked_at: datetime


class LeftBehindShape(msgspec.Struct, frozen=True, kw_only=True):
    """A reference that could not follow its gallery to another model."""

    reference_id: UUID
    person: PersonRefShape
    code: str
    """Why: `image_not_kept`, `face_not_found`, or another error of an image."""


class LeftBehindListShape(msgspec.Struct, frozen=True, kw_only=True):
    """A page of them."""

    items: list[LeftBehindShape]
    next_cursor: str | None


class PersonListShape(msgspec.Struct, frozen=True, kw_only=True):
    """A page of people."""

    items: list[PersonShape]
    next_cursor: str | None


class ReferenceListShape(msgspec.Struct, frozen=True, kw_only=True):
    """A page of references."""

    items: list[ReferenceShape]
    next_cursor: str | None


class BatchItemShape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item's result, or its problem."""

    index: int
    enrolled: EnrolledShape | None = None
    verified: VerifiedShape | None = None
    searched: SearchedShape | None = None
    problem: Problem | None = None


class BatchShape(msgspec.Struct, frozen=True, kw_only=True):
    """Every item's result, in order."""

    items: list[BatchItemShape]


class ReadinessShape(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the service can do its work."""

    status: str
    checks: dict[str, str]
    """By port: `ok`, or what is wrong."""


def to_detected(analysis: Analysis, *, model: str, took_ms: float) -> DetectedShape:
    """Render all faces of an image."""
    return DetectedShape(
        image=ImageShape(width=analysis.width, height=analysis.height),
        faces=[
            DetectedFaceShape(
                box=to_box(face.box, analysis),
                landmarks=_landmarks(face),
                confidence=round(face.confidence, 4),
                pose=PoseShape(
                    yaw=round(face.pose.yaw, 1), pitch=round(face.pose.pitch, 1), roll=round(face.pose.roll, 1)
                ),
                quality=to_quality(face.quality),
            )
            for face in analysis.faces
        ],
        model=model,
        took_ms=took_ms,
    )


def to_embedded(analysis: Analysis, *, model: str, took_ms: float) -> EmbeddedShape:
    """Render all faces of an image with their embeddings."""
    return EmbeddedShape(
        faces=[
            EmbeddedFaceShape(
                box=to_box(face.box, analysis),
                quality=to_quality(face.quality),
                embedding=[float(number) for number in face.embedding.vector],
                model=model,
            )
            for face in analysis.faces
            if face.embedding is not None
        ],
        took_ms=took_ms,
    )


def to_verified(verification: Verification, *, took_ms: float) -> VerifiedShape:
    """Render a verification against a person or a reference."""
    criterion = verification.criterion
    return VerifiedShape(
        verified=verification.decision.outcome is Outcome.MATCH,
        decision=to_decision(verification.decision),
        similarity=round(verification.similarity, _SIMILARITY_DIGITS),
        threshold=_rounded(criterion.threshold),
        threshold_source=criterion.source,
        threshold_target=_target(criterion),
        false_match_rate=_rate(criterion.false_match_rate),
        person=_person_ref(verification.best),
        reference_id=verification.best.reference,
        probe=_probe(verification.probe.face, verification.probe.image),
        model=verification.model,
        took_ms=took_ms,
    )


def to_compared(comparison: Comparison, *, took_ms: float) -> VerifiedShape:
    """Render a comparison of two images: a verification in which nobody is named."""
    criterion = comparison.criterion
    return VerifiedShape(
        verified=comparison.decision.outcome is Outcome.MATCH,
        decision=to_decision(comparison.decision),
        similarity=round(comparison.similarity, _SIMILARITY_DIGITS),
        threshold=_rounded(criterion.threshold),
        threshold_source=criterion.source,
        threshold_target=_target(criterion),
        false_match_rate=_rate(criterion.false_match_rate),
        person=None,
        reference_id=None,
        probe=_probe(comparison.probe.face, comparison.probe.image),
        other=_probe(comparison.other.face, comparison.other.image),
        model=comparison.model,
        took_ms=took_ms,
    )


def to_searched(result: SearchResult, *, took_ms: float) -> SearchedShape:
    """Render a search."""
    criterion = result.criterion
    return SearchedShape(
        faces=[_searched_face(face, result.image) for face in result.faces],
        threshold=_rounded(criterion.threshold),
        threshold_source=criterion.source,
        threshold_target=_target(criterion),
        false_positive_identification_rate=_rate(criterion.false_positive_identification_rate),
        references=result.references,
        model=result.model,
        query_time_ms=round(result.query_ms, 2),
        took_ms=took_ms,
    )


def to_gallery(gallery: Gallery) -> GalleryShape:
    """Render a gallery without counting it."""
    return GalleryShape(
        id=gallery.id,
        name=gallery.name,
        space=gallery.space,
        policy=_policy(gallery.policy),
        version=gallery.version,
        created_at=gallery.created_at,
        updated_at=gallery.updated_at,
    )


def to_gallery_state(state: GalleryState) -> GalleryShape:
    """Render a gallery with what to expect of it."""
    expected = state.capacity
    return msgspec.structs.replace(
        to_gallery(state.gallery),
        capacity=None
        if expected is None
        else CapacityShape(
            references=expected.references,
            expected_fnir=_rounded(expected.expected_fnir),
            outgrown=expected.outgrown,
        ),
    )


def to_migration(migration: Migration) -> MigrationShape:
    """Render a gallery on its way."""
    move, standing = migration.move, migration.standing
    return MigrationShape(
        gallery_id=move.gallery,
        space=migration.gallery.space,
        source=move.source,
        target=move.target,
        phase=migration.phase,
        references=standing.references,
        followed=standing.followed,
        lagging=standing.lagging,
        left_behind=dict(standing.left_behind),
        report=None if move.report is None else dict(move.report),
        job=None if migration.job is None else to_job(migration.job),
        switched_at=move.switched_at,
        asked_at=move.asked_at,
    )


def to_left_behind(one: LeftBehind) -> LeftBehindShape:
    """Render a reference that could not follow."""
    return LeftBehindShape(
        reference_id=one.reference,
        person=PersonRefShape(id=one.person, external_id=one.external_id),
        code=one.refusal,
    )


def to_person(person: Person) -> PersonShape:
    """Render a person."""
    return PersonShape(
        id=person.id,
        gallery_id=person.gallery,
        external_id=person.external_id,
        metadata=dict(person.metadata),
        version=person.version,
        merged_into=person.merged_into,
        retention_days=person.retention_days,
        consent_expires_at=person.consent_expires_at,
        created_at=person.created_at,
        updated_at=person.updated_at,
    )


def to_person_state(state: PersonState) -> PersonShape:
    """Render a person with when they are due."""
    return msgspec.structs.replace(to_person(state.person), erase_after=state.erase_after)


def to_reference(reference: Reference) -> ReferenceShape:
    """Render a reference; its template never leaves."""
    return ReferenceShape(
        id=reference.id,
        person_id=reference.person,
        quality=to_quality(reference.quality),
        box=_plain_box(reference.box),
        filename=reference.filename,
        has_image=reference.image_key is not None,
        searchable=reference.searchable,
        created_at=reference.created_at,
    )


def to_enrolled(enrolled: Enrolled) -> EnrolledShape:
    """Render an enrolment."""
    return EnrolledShape(
        person=to_person(enrolled.person),
        accepted=[to_reference(reference) for reference in enrolled.accepted],
        rejected=rejected_of(enrolled.rejected),
    )


def to_box(box: Box, image: Analysis) -> PlacedBoxShape:
    """Render a box in pixels and as shares of its image."""
    plain = _plain_box(box)
    return PlacedBoxShape(
        left=plain.left,
        top=plain.top,
        width=plain.width,
        height=plain.height,
        normalised=BoxShape(
            left=round(box.left / image.width, _SIMILARITY_DIGITS),
            top=round(box.top / image.height, _SIMILARITY_DIGITS),
            width=round(box.width / image.width, _SIMILARITY_DIGITS),
            height=round(box.height / image.height, _SIMILARITY_DIGITS),
        ),
    )


def to_quality(quality: Quality) -> QualityShape:
    """Render a quality."""
    return QualityShape(score=round(quality.score, 3), reasons=[reason.value for reason in quality.reasons])


def to_decision(decision: Decision) -> DecisionShape:
    """Render a decision."""
    return DecisionShape(outcome=decision.outcome, reasons=[reason.value for reason in decision.reasons])


def _searched_face(searched: SearchedFace, image: Analysis) -> SearchedFaceShape:
    return SearchedFaceShape(
        box=to_box(searched.face.box, image),
        quality=to_quality(searched.face.quality),
        decision=to_decision(searched.decision),
        matches=[_match(candidate) for candidate in searched.candidates],
    )


def _match(candidate: Candidate) -> MatchShape:
    return MatchShape(
        person=_person_ref(candidate.best),
        reference_id=candidate.best.reference,
        outcome=candidate.decision.outcome,
        similarity=round(candidate.similarity, _SIMILARITY_DIGITS),
        margin=_rounded(candidate.margin),
    )


def _person_ref(template: SealedTemplate) -> PersonRefShape:
    return PersonRefShape(id=template.person, external_id=template.external_id)


def _probe(face: Face, image: Analysis) -> ProbeShape:
    return ProbeShape(box=to_box(face.box, image), quality=to_quality(face.quality))


def _target(criterion: Criterion) -> TargetShape | None:
    if criterion.target is None:
        return None
    return TargetShape(kind=criterion.target.kind, value=criterion.target.value)


def _policy(policy: Policy) -> PolicyShape:
    return PolicyShape(
        target_fmr=policy.target_fmr,
        target_fpir=policy.target_fpir,
        verification_threshold=policy.verification_threshold,
        search_threshold=policy.search_threshold,
        refused_reasons=sorted(reason.value for reason in policy.refused_reasons),
        keep_images=policy.keep_images,
        hide_uncertain=policy.hide_uncertain,
        retention_days=policy.retention_days,
        consent_expires_at=policy.consent_expires_at,
    )


def _plain_box(box: Box) -> BoxShape:
    return BoxShape(
        left=round(box.left, _PIXEL_DIGITS),
        top=round(box.top, _PIXEL_DIGITS),
        width=round(box.width, _PIXEL_DIGITS),
        height=round(box.height, _PIXEL_DIGITS),
    )


def _landmarks(face: Face) -> LandmarksShape:
    eyes_nose_mouth = [
        PointShape(x=round(point.x, _PIXEL_DIGITS), y=round(point.y, _PIXEL_DIGITS))
        for point in face.landmarks.points()
    ]
    left_eye, right_eye, nose, left_mouth, right_mouth = eyes_nose_mouth
    return LandmarksShape(
        left_eye=left_eye, right_eye=right_eye, nose=nose, left_mouth=left_mouth, right_mouth=right_mouth
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _SIMILARITY_DIGITS)


def _rate(value: float | None) -> float | None:
    """Round to significant digits: the data carries no more."""
    return None if value is None else float(f"{value:.{_RATE_DIGITS}g}")
