"""The one composition root: HTTP, worker and command line call it, and close what it gives."""

from dishka import STRICT_VALIDATION, AsyncContainer, Provider, Scope, from_context, make_async_container, provide

from application.ports.keyed_hash import KeyedHash
from application.ports.model_packs import Progress
from application.use_cases.galleries.get_gallery import GetGallery
from entrypoints.http.capacity_watch import CapacityWatch
from entrypoints.http.cursors import Cursors
from entrypoints.settings import Settings
from entrypoints.wiring.accounts import AccountProvider
from entrypoints.wiring.backends import BackendProvider
from entrypoints.wiring.bulk_enrolment import BulkEnrolmentProvider
from entrypoints.wiring.database import DatabaseProvider
from entrypoints.wiring.erasure import ErasureProvider
from entrypoints.wiring.faces import FaceProvider
from entrypoints.wiring.gallery_moves import GalleryMoveProvider
from entrypoints.wiring.indexes import IndexProvider
from entrypoints.wiring.protection import ProtectionProvider
from entrypoints.wiring.use_cases import UseCaseProvider


class ContextProvider(Provider):
    """What the caller hands in."""

    scope = Scope.APP

    settings = from_context(Settings)
    progress = from_context(Progress)

    @provide
    def cursors(self, keyed_hash: KeyedHash) -> Cursors:
        """Sign lists' cursors."""
        return Cursors(keyed_hash)

    @provide
    def capacity_watch(self, show: GetGallery) -> CapacityWatch:
        """Warn about galleries that outgrow their pack."""
        return CapacityWatch(show)


def make_container(settings: Settings, *overrides: Provider, progress: Progress | None = None) -> AsyncContainer:
    """Return a container; nothing is started before something is asked of it. Close it with `close()`.

    Args:
        settings: all of them.
        overrides: providers that take the place of built-in ones, type by type (for tests and third parties).
        progress: told about model packs that have to be built first; None: nobody is.
    """
    return make_async_container(
        ContextProvider(),
        DatabaseProvider(),
        ProtectionProvider(),
        FaceProvider(),
        IndexProvider(),
        BackendProvider(),
        AccountProvider(),
        UseCaseProvider(),
        BulkEnrolmentProvider(),
        GalleryMoveProvider(),
        ErasureProvider(),
        *overrides,
        context={Settings: settings, Progress: progress or _unheard},
        validation_settings=STRICT_VALIDATION,
    )


def _unheard(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""
