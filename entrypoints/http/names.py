"""What clients name in paths and bodies."""

from uuid import UUID

from domain.errors import GalleryNotFound, InvalidValue
from domain.gallery import DEFAULT_GALLERY, GalleryId, checked_gallery_name

LONGEST_PAGE = 100


def gallery_named(name: str | None) -> GalleryId | str:
    """Return a gallery's id or name; the default one where none is named.

    Raises `GalleryNotFound` for what can be neither: such a gallery cannot exist.
    """
    if name is None:
        return DEFAULT_GALLERY
    try:
        return GalleryId(UUID(name))
    except ValueError:
        pass
    try:
        return checked_gallery_name(name)
    except InvalidValue as error:
        raise GalleryNotFound("no such gallery") from error


def page_size(limit: int) -> int:
    """Return it as it is. Raises `InvalidValue` unless it is 1..100."""
    if not 1 <= limit <= LONGEST_PAGE:
        raise InvalidValue(f"limit is 1 to {LONGEST_PAGE}", field="limit")
    return limit
