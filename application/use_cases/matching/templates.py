"""Templates from the record, opened for comparing."""

from collections.abc import Sequence

from application.ports.cipher import Cipher
from application.ports.record import SealedTemplate
from application.use_cases.references.places import template_place
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from domain.errors import CannotOpen, InvalidValue
from domain.gallery import Gallery


def opened(cipher: Cipher, sealed: Sequence[SealedTemplate], gallery: Gallery) -> list[Embedding]:
    """Open templates of one gallery, in order. Raises `CannotOpen` where one was changed or moved."""
    return [_opened(cipher, one, gallery) for one in sealed]


def opened_or_damaged(
    cipher: Cipher, sealed: Sequence[SealedTemplate], gallery: Gallery
) -> tuple[list[tuple[SealedTemplate, Embedding]], list[ReferenceId]]:
    """Open templates of one gallery, in order, and name those that do not open, or hold no embedding."""
    found: list[tuple[SealedTemplate, Embedding]] = []
    damaged: list[ReferenceId] = []
    for one in sealed:
        try:
            found.append((one, _opened(cipher, one, gallery)))
        except (CannotOpen, InvalidValue):
            damaged.append(one.reference)
    return found, damaged


def _opened(cipher: Cipher, one: SealedTemplate, gallery: Gallery) -> Embedding:
    place = template_place(gallery.workspace, one.reference)
    return Embedding.from_bytes(cipher.open(one.template, key=one.key, place=place), one.space)
