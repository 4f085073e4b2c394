"""Templates from the record, opened for comparing."""

from collections.abc import Sequence

from application.ports.cipher import Cipher
from application.ports.record import SealedTemplate
from application.use_cases.references.places import template_place
from domain.embedding import Embedding
from domain.gallery import Gallery


def opened(cipher: Cipher, sealed: Sequence[SealedTemplate], gallery: Gallery) -> list[Embedding]:
    """Open templates of one gallery, in order. Raises `CannotOpen` where one was changed or moved."""
    return [
        Embedding.from_bytes(
            cipher.open(one.template, key=one.key, place=template_place(gallery.workspace, one.reference)),
            gallery.space,
        )
        for one in sealed
    ]
