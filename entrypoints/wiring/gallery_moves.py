"""Moving galleries from one face model to another."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dishka import AsyncContainer, Provider, Scope, provide, provide_all

from adapters.persistence.gallery_moves import SqlGalleryMoves, SqlSpareTemplates
from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.gallery_moves import GalleryMoves, SpareTemplates
from application.ports.index_states import IndexStates
from application.ports.record import Record
from application.use_cases.galleries.compare_spaces import CompareSpaces
from application.use_cases.galleries.finish_migration import FinishMigration
from application.use_cases.galleries.follow_references import FollowReferences
from application.use_cases.galleries.get_migration import GetMigration
from application.use_cases.galleries.list_left_behind import ListLeftBehind
from application.use_cases.galleries.migrate_gallery import MigrateGallery
from application.use_cases.galleries.move_gallery import MoveGallery
from application.use_cases.galleries.move_order import MoveUnit
from application.use_cases.spaces import ServedSpaces


class GalleryMoveProvider(Provider):
    """What is kept of a move, those who ask for one, and who does it."""

    moves = provide(SqlGalleryMoves, provides=GalleryMoves, scope=Scope.REQUEST)
    spare_templates = provide(SqlSpareTemplates, provides=SpareTemplates, scope=Scope.REQUEST)
    asking = provide_all(MoveUnit, MigrateGallery, FinishMigration, GetMigration, ListLeftBehind, scope=Scope.REQUEST)
    compare = provide(CompareSpaces, scope=Scope.APP)

    @provide(scope=Scope.APP)
    def move_gallery(
        self,
        container: AsyncContainer,
        spaces: ServedSpaces,
        states: IndexStates,
        record: Record,
        blobs: BlobStore,
        cipher: Cipher,
        clock: Clock,
        compare: CompareSpaces,
    ) -> MoveGallery:
        """Give each transaction of a move a unit of work of its own."""

        @asynccontextmanager
        async def moving() -> AsyncIterator[MoveUnit]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(MoveUnit)

        follow = FollowReferences(spaces=spaces, blobs=blobs, cipher=cipher, scope=moving, clock=clock)
        return MoveGallery(
            spaces=spaces, states=states, record=record, scope=moving, follow=follow, compare=compare, clock=clock
        )
