"""The master key, the ring of keys below it, and what they make possible."""

from collections.abc import AsyncIterator

from dishka import Provider, Scope, provide

from adapters.persistence.database import Database
from adapters.persistence.schema_ping import require_current
from adapters.security.cipher import AesGcmCipher
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.opened_ring import OpenedRing
from adapters.system.clock import SystemClock
from adapters.system.id_generator import UuidV7Generator
from application.ports.cipher import Cipher
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.keyed_hash import KeyedHash
from application.ports.master_key import MasterKey
from entrypoints.settings import Settings
from entrypoints.wiring.keys import opened_master_key, opened_ring, was_started


class ProtectionProvider(Provider):
    """Keys, hashes, ids, time."""

    scope = Scope.APP

    clock = provide(SystemClock, provides=Clock)
    ids = provide(UuidV7Generator, provides=IdGenerator)

    @provide
    async def master_key(self, settings: Settings, database: Database) -> AsyncIterator[MasterKey]:
        """Open the master key; make one for a database that has none yet.

        Which of the two it is only a database with this version's schema can say: another is `PortUnavailable`.
        """
        await require_current(database.reads)
        async with opened_master_key(settings, has_data=await was_started(database.reads)) as key:
            yield key

    @provide
    async def ring(self, master: MasterKey, database: Database) -> AsyncIterator[OpenedRing]:
        """Open what the database has under this master key, and follow its changes."""
        ring = await opened_ring(master, reads=database.reads, transactions=database.transactions)
        async with ring.followed():
            yield ring

    @provide
    def cipher(self, ring: OpenedRing) -> Cipher:
        """Seal under the ring's wrapping keys."""
        return AesGcmCipher(ring.wrapping)

    @provide
    def keyed_hash(self, ring: OpenedRing) -> KeyedHash:
        """Hash under the ring's hashing secret."""
        return HmacKeyedHash(ring.hashing)
