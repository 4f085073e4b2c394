"""An item of a bulk enrolment as bytes: what is sealed into the blob store until its job comes to it."""

import json
from datetime import datetime
from uuid import UUID

from application.use_cases.references.enrol_batch import EnrolmentItem
from application.use_cases.references.enrol_references import SentImage
from domain.person import PersonId
from domain.retention import Retention

_LENGTH = 4
"""Bytes that say how long the head is."""


def packed(item: EnrolmentItem) -> bytes:
    """Return an item as its head's length, its head as JSON, and its images one after the other."""
    head = json.dumps(
        {
            "person": None if item.person is None else str(item.person),
            "external_id": item.external_id,
            "metadata": None if item.metadata is None else dict(item.metadata),
            "retention": [item.retention.days, _text(item.retention.consent_expires_at)],
            "images": [[len(image.content), image.filename] for image in item.images],
        }
    ).encode()
    return b"".join((len(head).to_bytes(_LENGTH, "big"), head, *(image.content for image in item.images)))


def unpacked(raw: bytes) -> EnrolmentItem:
    """Return what was packed."""
    start = _LENGTH + int.from_bytes(raw[:_LENGTH], "big")
    head = json.loads(raw[_LENGTH:start])
    images = []
    for length, filename in head["images"]:
        images.append(SentImage(content=raw[start : start + length], filename=filename))
        start += length
    return EnrolmentItem(
        images=tuple(images),
        person=None if head["person"] is None else PersonId(UUID(head["person"])),
        external_id=head["external_id"],
        metadata=head["metadata"],
        retention=_retention(*head.get("retention", (None, None))),
    )


def _retention(days: int | None, consent: str | None) -> Retention:
    return Retention(days=days, consent_expires_at=None if consent is None else datetime.fromisoformat(consent))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
