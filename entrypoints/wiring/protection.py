"""The master key and what it makes possible."""

import asyncio

import structlog
from dishka import Provider, Scope, provide

from adapters.persistence.database import Database
from adapters.persistence.installation import InstallationRow
from adapters.persistence.schema_ping import require_current
from adapters.security.cipher import AesGcmCipher
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.master_key import MasterKey, MasterKeyError, load_or_create
from adapters.system.clock import SystemClock
from adapters.system.id_generator import UuidV7Generator
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.keyed_hash import KeyedHash
from entrypoints.settings import Settings
from entrypoints.wiring.start_error import StartError

log = structlog.get_logger("facepass.protection")


class ProtectionProvider(Provider):
    """Keys, hashes, ids, time."""

    scope = Scope.APP

    clock = provide(SystemClock, provides=Clock)
    ids = provide(UuidV7Generator, provides=IdGenerator)
    cipher = provide(AesGcmCipher, provides=Cipher)
    keyed_hash = provide(HmacKeyedHash, provides=KeyedHash)

    @provide
    async def master_key(self, settings: Settings, database: Database) -> MasterKey:
        """Load the key that the database was first started with; make one for a database that has none yet.

        Which of the two it is only a database with this version's schema can say: another is `PortUnavailable`.
        """
        await require_current(database.reads)
        installation = InstallationRow(database.reads)
        known = await installation.master_key()
        try:
            loaded = await asyncio.to_thread(load_or_create, settings.master_key_path, may_create=known is None)
        except MasterKeyError as error:
            raise StartError(str(error)) from error
        if loaded.created:
            log.warning("master_key_made", path=str(settings.master_key_path), advice="back it up, apart from the data")
        await installation.remember_master_key(loaded.key.fingerprint)
        return loaded.key
