"""Making references, and what becomes of each image sent for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType
from uuid import UUID

from domain.embedding import SpaceId
from domain.errors import FaceNotFound, FaceRefused, MultipleFaces
from domain.face import Analysis, Box, Face
from domain.gallery import GalleryId, Policy
from domain.person import PersonId
from domain.quality import REFUSALS, Quality, Reason
from domain.workspace import WorkspaceId

ReferenceId = NewType("ReferenceId", UUID)

IMAGES_PER_ENROLMENT = 100
"""As many images as one call may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One enrolled face of a person; its template is kept apart, sealed."""

    id: ReferenceId
    workspace: WorkspaceId
    gallery: GalleryId
    person: PersonId
    space: SpaceId
    quality: Quality
    box: Box
    """Pixels of the upright image it was enrolled from."""
    filename: str | None
    image_key: str | None
    """Where the blob store keeps its image; None where images are not kept."""
    image_type: str | None
    """Media type of the kept image."""
    searchable: bool
    """Whether the vector index has it."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """An image that became no reference."""

    index: int
    """Position among the images sent, from 0."""
    filename: str | None
    code: str
    """The code of the error that refused it."""
    detail: str


def face_to_enrol(analysis: Analysis, policy: Policy) -> Face:
    """Return the one face of an image that is good enough.

    Raises `FaceNotFound`, `MultipleFaces`, or the error of the worst quality reason that the policy refuses.
    """
    face = only_face(analysis.faces)
    for reason in face.quality.reasons:
        if reason in policy.refused_reasons:
            raise refusal(face, reason)
    return face


def only_face(faces: Sequence[Face]) -> Face:
    """Return the one face. Raises `FaceNotFound` for none and `MultipleFaces` for several."""
    if not faces:
        raise FaceNotFound("no face was found in the image")
    if len(faces) > 1:
        raise MultipleFaces(f"the image shows {len(faces)} faces, and one is wanted: cut it to the person meant")
    return faces[0]


def refusal(face: Face, reason: Reason) -> FaceRefused:
    """Return the error for one of a face's quality reasons; its message names the others too."""
    others = ", ".join(other.value for other in face.quality.reasons if other is not reason)
    return REFUSALS[reason](
        f"the face cannot be enrolled: {reason.value.replace('_', ' ')} (quality {face.quality.score:.2f}"
        + (f"; also {others})" if others else ")")
    )
