"""What keeps the kit apart from an operator's data where an adapter has no setting for it."""

from collections.abc import AsyncIterator

import pytest

from application.ports.blob_store import BlobKey, BlobStore, checked_blob_key
from application.ports.ping import Ping
from domain.errors import InvalidValue


def apart(store: BlobStore, place: str) -> BlobStore:
    """Return a store whose keys all begin with `place` in the one given; nothing else of that is seen or touched."""
    return _PingedApart(store, place, store) if isinstance(store, Ping) else _Apart(store, place)


class _Apart(BlobStore):
    def __init__(self, store: BlobStore, place: str) -> None:
        self._store = store
        self._place = f"{place}/"

    async def put(self, key: BlobKey, content: bytes) -> None:
        await self._store.put(self._within(key), content)

    async def get(self, key: BlobKey) -> bytes | None:
        return await self._store.get(self._within(key))

    async def remove(self, key: BlobKey) -> None:
        await self._store.remove(self._within(key))

    async def keys(self, prefix: str) -> AsyncIterator[BlobKey]:
        async for key in self._store.keys(self._place + prefix):
            yield BlobKey(key.removeprefix(self._place))

    def _within(self, key: BlobKey) -> BlobKey:
        """Put the place in front. A hostile key stays one, for the store to refuse."""
        within = BlobKey(self._place + key)
        if _is_key(key) and not _is_key(within):
            pytest.skip("such a key and the prefix that keeps the kit apart are too long together")
        return within


class _PingedApart(_Apart, Ping):
    def __init__(self, store: BlobStore, place: str, ping: Ping) -> None:
        super().__init__(store, place)
        self._ping = ping

    @property
    def name(self) -> str:
        return self._ping.name

    async def ping(self) -> None:
        await self._ping.ping()


def _is_key(key: str) -> bool:
    try:
        checked_blob_key(key)
    except InvalidValue:
        return False
    return True
