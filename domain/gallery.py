"""A set of enrolled people, bound to one embedding space, with a policy of its own."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType
from uuid import UUID

from domain.embedding import SpaceId
from domain.errors import InvalidValue
from domain.quality import Reason
from domain.retention import Retention, checked_consent, checked_retention_days
from domain.workspace import WorkspaceId

GalleryId = NewType("GalleryId", UUID)

DEFAULT_GALLERY = "default"
"""Every workspace has it; it is meant where none is named."""

DEFAULT_TARGET_FMR = 1e-3
DEFAULT_TARGET_FPIR = 1e-2
"""One false match in a thousand verifications of impostors; one in a hundred searches of strangers."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a gallery asks for, where a request asks for nothing else."""

    target_fmr: float = DEFAULT_TARGET_FMR
    target_fpir: float = DEFAULT_TARGET_FPIR
    verification_threshold: float | None = None
    """A fixed cosine in -1..1 in place of what follows from `target_fmr`."""
    search_threshold: float | None = None
    """A fixed cosine in -1..1 in place of what follows from `target_fpir`."""
    refused_reasons: frozenset[Reason] = field(default_factory=lambda: frozenset(Reason))
    """The quality reasons that keep a face from being enrolled. Probes are never refused for them."""
    keep_images: bool = True
    hide_uncertain: bool = False
    """Leave people between the two thresholds out of a search's answer."""
    retention_days: int | None = None
    consent_expires_at: datetime | None = None
    """See `Retention`; for everybody for whom nothing else was set."""

    def __post_init__(self) -> None:
        """Raise `InvalidValue` for a rate outside 0..1, a threshold outside -1..1, a bad retention."""
        checked_rate(self.target_fmr, "policy.target_fmr")
        checked_rate(self.target_fpir, "policy.target_fpir")
        checked_threshold(self.verification_threshold, "policy.verification_threshold")
        checked_threshold(self.search_threshold, "policy.search_threshold")
        checked_retention_days(self.retention_days, "policy.retention_days")
        checked_consent(self.consent_expires_at, "policy.consent_expires_at")

    @property
    def retention(self) -> Retention:
        """When people are erased by themselves."""
        return Retention(days=self.retention_days, consent_expires_at=self.consent_expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Its people's references live in `space`, and in no other."""

    id: GalleryId
    workspace: WorkspaceId
    name: str
    """Unique in the workspace."""
    space: SpaceId
    policy: Policy
    created_at: datetime
    updated_at: datetime
    version: int
    """Counts changes from 1; the entity tag."""


def checked_rate(rate: float, field_name: str) -> float:
    """Return it as it is. Raises `InvalidValue` unless it lies strictly between 0 and 1."""
    if not 0.0 < rate < 1.0:
        raise InvalidValue("an error rate lies between 0 and 1, both excluded", field=field_name)
    return rate


def checked_threshold(threshold: float | None, field_name: str) -> float | None:
    """Return it as it is. Raises `InvalidValue` unless it is None or a cosine in -1..1."""
    if threshold is not None and not -1.0 <= threshold <= 1.0:
        raise InvalidValue("a threshold is a cosine in -1..1", field=field_name)
    return threshold


def checked_gallery_name(name: str) -> str:
    """Return it as it is. Raises `InvalidValue` unless it can stand in a path and cannot be taken for an id."""
    if not _NAME.fullmatch(name) or _looks_like_an_id(name):
        raise InvalidValue(
            "a gallery's name has 1 to 63 of a-z, 0-9, '.', '_' and '-', begins with a letter or digit, and is no UUID",
            field="name",
        )
    return name


def _looks_like_an_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True
