from application.ports.inventory import Inventory
from domain.gallery import Gallery, GalleryId

_PAGE = 500


async def all_galleries(inventory: Inventory) -> list[Gallery]:
    """Return the galleries of all workspaces, by id. Raises `PortUnavailable`."""
    found: list[Gallery] = []
    after: GalleryId | None = None
    while page := await inventory.galleries(after=after, limit=_PAGE):
        found.extend(page)
        after = page[-1].id
    return found
