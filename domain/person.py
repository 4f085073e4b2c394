"""Somebody enrolled in a gallery."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NewType
from uuid import UUID

from domain.errors import InvalidValue
from domain.gallery import GalleryId
from domain.retention import Retention
from domain.workspace import WorkspaceId

PersonId = NewType("PersonId", UUID)

EXTERNAL_ID_LENGTH = 255
"""Characters at most."""
METADATA_KEYS = 50
METADATA_KEY_LENGTH = 64
METADATA_VALUE_LENGTH = 1024
"""Metadata is for a few labels, not a store: 50 keys of 64 characters, values of 1,024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Id, optional unique `external_id`, metadata."""

    id: PersonId
    workspace: WorkspaceId
    gallery: GalleryId
    external_id: str | None
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    version: int
    """Counts changes from 1; the entity tag."""
    merged_into: PersonId | None = None
    retention_days: int | None = None
    consent_expires_at: datetime | None = None
    """See `Retention`; None: the gallery's."""

    @property
    def retention(self) -> Retention:
        """What was set for them; what the gallery sets holds where this says nothing."""
        return Retention(days=self.retention_days, consent_expires_at=self.consent_expires_at)


def checked_external_id(external_id: str | None) -> str | None:
    """Return it as it is. Raises `InvalidValue` unless it is 1..255 printable characters without edges of space."""
    if external_id is None:
        return None
    if not external_id or len(external_id) > EXTERNAL_ID_LENGTH:
        raise InvalidValue(f"external_id has 1 to {EXTERNAL_ID_LENGTH} characters", field="external_id")
    if external_id != external_id.strip() or not external_id.isprintable():
        raise InvalidValue(
            "external_id is printable and has no space at its ends; surrogates and control characters are refused",
            field="external_id",
        )
    return external_id


def checked_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Return it as it is. Raises `InvalidValue` where it is larger than labels need, or holds a NUL."""
    if len(metadata) > METADATA_KEYS:
        raise InvalidValue(f"metadata has at most {METADATA_KEYS} keys", field="metadata")
    for key, value in metadata.items():
        if not 1 <= len(key) <= METADATA_KEY_LENGTH:
            raise InvalidValue(f"a key of metadata has 1 to {METADATA_KEY_LENGTH} characters", field="metadata")
        if len(value) > METADATA_VALUE_LENGTH:
            raise InvalidValue(
                f"a value of metadata has at most {METADATA_VALUE_LENGTH} characters", field=f"metadata.{key}"
            )
        if "\x00" in key or "\x00" in value:
            raise InvalidValue("metadata holds no NUL characters", field="metadata")
    return metadata
