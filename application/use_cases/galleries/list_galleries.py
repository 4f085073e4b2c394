from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.repositories import GalleryRepository, Page
from domain.gallery import Gallery, GalleryId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListGalleries:
    """List the workspace's galleries, oldest first; an API key that is limited to some sees those alone."""

    galleries: GalleryRepository

    async def __call__(
        self, *, workspace: WorkspaceId, limit: int, after: UUID | None, among: frozenset[GalleryId] | None = None
    ) -> Page[Gallery]:
        return await self.galleries.page(workspace, limit=limit, after=after, among=among)
