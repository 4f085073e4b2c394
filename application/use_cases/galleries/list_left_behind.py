from dataclasses import dataclass
from typing import final
from uuid import UUID

from application.ports.gallery_moves import GalleryMoves, LeftBehind, SpareTemplates
from application.ports.repositories import GalleryRepository, Page
from domain.enrolment import ReferenceId
from domain.gallery import GalleryId
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListLeftBehind:
    """List the references that could not follow their gallery to another model, and why.

    While the gallery is on its way, those for whom the other model has nothing; afterwards those that its own has
    nothing for: they are kept, and not found. Enrol their people anew, and delete them.
    """

    galleries: GalleryRepository
    moves: GalleryMoves
    templates: SpareTemplates

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, limit: int, after: UUID | None
    ) -> Page[LeftBehind]:
        place = await self.galleries.get(workspace, gallery)
        move = await self.moves.get(workspace, place.id)
        return await self.templates.left_behind(
            workspace,
            place.id,
            place.space if move is None else move.target,
            after=None if after is None else ReferenceId(after),
            limit=limit,
        )
