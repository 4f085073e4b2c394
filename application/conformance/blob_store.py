"""What every blob store promises."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import ClassVar, cast

import pytest

from application.conformance.contract import Contract
from application.ports.blob_store import BlobKey, BlobStore, blob_key
from application.ports.errors import PortUnavailable
from application.ports.ping import Ping
from domain.errors import InvalidValue

HOSTILE_KEYS = {
    "empty": "",
    "parent": "..",
    "parent inside": "a/../b",
    "parent behind": "a/..",
    "here": "./a",
    "absolute": "/etc/passwd",
    "empty segment": "a//b",
    "slash behind": "a/",
    "backslash": "a\\b",
    "drive": "c:a",
    "NUL": "a\x00b",
    "line end": "a\n",
    "space": "a b",
    "upper case": "A",
    "dot": "a.b",
    "underscore": "a_b",
    "percent": "a%2e%2e",
    "letter beyond ASCII": "ä",
    "digit beyond ASCII": "\u0663",
    "look-alike slash": "a\u2215b",
    "surrogate": "\ud800",
    "long segment": "a" * 65,
    "many segments": "/".join("abcdefghi"),
}

LARGE = 12 * 2**20
"""Bytes of a body that stores which send in parts do not send in one."""

_LARGEST = 32 * 2**20

OpenBlobStore = Callable[[], AbstractAsyncContextManager[BlobStore]]


class BlobStoreContract(Contract):
    """Give `open_store`: a function that opens the same, at first empty, storage for a block, each time anew.

    Two promises are seen from behind the port alone, and need a fixture more where the store has what they are about:
    `unavailable` (see `has_backend`), `half_written` and `leftovers` (see `writes_in_steps`).
    """

    has_backend: ClassVar[bool] = True
    """Whether something stands behind the store that can be away: a server, a disk. Then give `unavailable`."""

    writes_in_steps: ClassVar[bool] = True
    """Whether a write that breaks off can leave something behind. Then give `half_written` and `leftovers`."""

    patience: ClassVar[float] = 60.0
    """Seconds in which every call on a store without its backend has to end: generous, since machines differ."""

    @pytest.fixture
    def open_store(self) -> OpenBlobStore:
        """Return the function; a store that lives in memory yields the same one each time."""
        raise NotImplementedError("give your contract test the fixture `open_store`")

    @pytest.fixture
    async def store(self, open_store: OpenBlobStore) -> AsyncIterator[BlobStore]:
        """Yield an open store with nothing in it."""
        async with open_store() as store:
            yield store

    @pytest.fixture
    def unavailable(self) -> BlobStore:
        """Return a store that was opened, and whose backend has gone away since."""
        if self.has_backend:
            raise NotImplementedError(
                "give your contract test the fixture `unavailable`, or set `has_backend` to False"
            )
        pytest.skip("this store has nothing behind it that could be away")

    @pytest.fixture
    def half_written(self) -> Callable[[BlobKey, bytes], Awaitable[None]]:
        """Return a function that begins to write past the port, in the storage of `store`, and stops in the middle.

        What it leaves is what a process leaves that was killed while it wrote.
        """
        if self.writes_in_steps:
            raise NotImplementedError("give the fixture `half_written`, or set `writes_in_steps` to False")
        pytest.skip("this store writes in one step")

    @pytest.fixture
    def leftovers(self) -> Callable[[], Awaitable[int]]:
        """Return a function that counts, past the port, what lies in the storage of `store` and is no blob."""
        if self.writes_in_steps:
            raise NotImplementedError("give the fixture `leftovers`, or set `writes_in_steps` to False")
        pytest.skip("this store writes in one step")

    async def test_what_was_put_is_got(self, store: BlobStore) -> None:
        await store.put(blob_key("a", "b"), b"\x00sealed\xff")
        assert await store.get(blob_key("a", "b")) == b"\x00sealed\xff"

    async def test_nothing_is_none(self, store: BlobStore) -> None:
        await store.put(blob_key("a", "b"), b"x")
        assert await store.get(blob_key("a", "c")) is None
        assert await store.get(blob_key("c", "b")) is None
        assert await store.get(blob_key("a")) is None

    async def test_empty_is_not_nothing(self, store: BlobStore) -> None:
        await store.put(blob_key("a"), b"")
        assert await store.get(blob_key("a")) == b""

    async def test_put_again_replaces(self, store: BlobStore) -> None:
        await store.put(blob_key("a"), b"first and longer")
        await store.put(blob_key("a"), b"second")
        assert await store.get(blob_key("a")) == b"second"
        assert await listed(store) == ["a"]

    async def test_removed_is_gone(self, store: BlobStore) -> None:
        await store.put(blob_key("a", "b"), b"x")
        await store.remove(blob_key("a", "b"))
        assert await store.get(blob_key("a", "b")) is None
        assert await listed(store) == []

    async def test_remove_twice_does_nothing(self, store: BlobStore) -> None:
        await store.put(blob_key("a"), b"x")
        await store.remove(blob_key("a"))
        await store.remove(blob_key("a"))
        await store.remove(blob_key("never", "there"))
        assert await listed(store) == []

    async def test_removed_can_be_put_again(self, store: BlobStore) -> None:
        await store.put(blob_key("a", "b"), b"before")
        await store.remove(blob_key("a", "b"))
        await store.put(blob_key("a", "b"), b"after")
        assert await store.get(blob_key("a", "b")) == b"after"

    async def test_removing_one_leaves_its_neighbours(self, store: BlobStore) -> None:
        keys = [blob_key("a"), blob_key("a", "b"), blob_key("a", "bc"), blob_key("a", "b", "c")]
        for key in keys:
            await store.put(key, key.encode())
        await store.remove(blob_key("a", "b"))
        assert await listed(store) == ["a", "a/b/c", "a/bc"]
        assert await store.get(blob_key("a", "b", "c")) == b"a/b/c"

    async def test_a_key_may_begin_another(self, store: BlobStore) -> None:
        for key in (blob_key("a", "b"), blob_key("a"), blob_key("a", "b", "c")):
            await store.put(key, key.encode())
        assert await store.get(blob_key("a")) == b"a"
        assert await store.get(blob_key("a", "b")) == b"a/b"
        assert await store.get(blob_key("a", "b", "c")) == b"a/b/c"

    async def test_the_longest_key_works(self, store: BlobStore) -> None:
        longest = blob_key(*(letter * 64 for letter in "abcdefgh"))
        await store.put(longest, b"x")
        assert await store.get(longest) == b"x"
        assert await listed(store) == [longest]

    async def test_keys_come_in_order(self, store: BlobStore) -> None:
        # '-' stands before '/', and '/' before digits and letters: a walk folder by folder would get this wrong.
        scattered = [
            "b",
            "a/b",
            "a-b",
            "a",
            "a0",
            "a/b-c",
            "a/b/c",
            "a-b/c",
            "0",
            "abcdefgh",
            "abcd",
            "abcd/e",
            "abcd-efg",
        ]
        for key in scattered:
            await store.put(BlobKey(key), b"x")
        assert await listed(store) == sorted(scattered)

    async def test_keys_are_found_by_prefix(self, store: BlobStore) -> None:
        kept = ["0199c1f2-aaaa/1", "0199c1f2-aaaa/2", "0199c1f2-aaab/1", "0299c1f2-aaaa/1", "0199"]
        for key in kept:
            await store.put(BlobKey(key), b"x")
        for prefix in ["", "0", "0199", "0199c1f2", "0199c1f2-aaaa", "0199c1f2-aaaa/", "0199c1f2-aaaa/2", "9", "0199/"]:
            assert await listed(store, prefix) == sorted(key for key in kept if key.startswith(prefix))

    @pytest.mark.parametrize("prefix", ["..", "/", "../", "a\x00", "*", "A", "\ud800"])
    async def test_a_hostile_prefix_finds_nothing(self, store: BlobStore, prefix: str) -> None:
        await store.put(blob_key("a"), b"x")
        assert await listed(store, prefix) == []

    async def test_more_keys_than_a_page_are_all_listed(self, store: BlobStore) -> None:
        keys = [blob_key("many", f"{number:04}") for number in range(1100)]
        for begin in range(0, len(keys), 50):
            await asyncio.gather(*(store.put(key, b"x") for key in keys[begin : begin + 50]))
        assert await listed(store, "many/") == keys

    @pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS.keys())
    async def test_a_hostile_key_is_refused(self, store: BlobStore, key: str) -> None:
        hostile = cast("BlobKey", key)
        with pytest.raises(InvalidValue):
            await store.put(hostile, b"x")
        with pytest.raises(InvalidValue):
            await store.get(hostile)
        with pytest.raises(InvalidValue):
            await store.remove(hostile)
        assert await listed(store) == []

    async def test_a_large_blob_comes_back_whole(self, store: BlobStore) -> None:
        large = bytes(range(256)) * (_LARGEST // 256) + b"and a piece that fills no part"
        await store.put(blob_key("large"), large)
        assert await store.get(blob_key("large")) == large
        assert await listed(store) == ["large"]

    async def test_a_large_blob_is_replaced_by_a_small_one_and_back(self, store: BlobStore) -> None:
        for content in (b"L" * LARGE, b"small", b"M" * LARGE):
            await store.put(blob_key("a"), content)
            assert await store.get(blob_key("a")) == content
        await store.remove(blob_key("a"))
        assert await store.get(blob_key("a")) is None

    async def test_many_at_once_do_not_disturb_each_other(self, store: BlobStore) -> None:
        contents = {blob_key("at-once", f"{number:02}"): bytes([number]) * 10_000 for number in range(40)}
        await asyncio.gather(*(store.put(key, content) for key, content in contents.items()))
        got = await asyncio.gather(*(store.get(key) for key in contents))
        assert got == list(contents.values())

    @pytest.mark.parametrize(("writers", "size"), [(10, 100_000), (3, LARGE)])
    async def test_writers_of_one_key_leave_one_of_their_contents(
        self, store: BlobStore, writers: int, size: int
    ) -> None:
        contents = [bytes([number]) * size for number in range(writers)]
        await asyncio.gather(*(store.put(blob_key("one"), content) for content in contents))
        assert await store.get(blob_key("one")) in contents

    @pytest.mark.parametrize(("writes", "size"), [(20, 100_000), (4, LARGE)])
    async def test_a_reader_never_sees_half_a_blob_or_two(self, store: BlobStore, writes: int, size: int) -> None:
        contents = [bytes([number]) * size for number in range(2)]
        await store.put(blob_key("one"), contents[1])
        torn: list[int] = []

        async def write() -> None:
            for number in range(writes):
                await store.put(blob_key("one"), contents[number % 2])

        async def look() -> None:
            blob = await store.get(blob_key("one"))
            if blob not in contents:
                torn.append(-1 if blob is None else len(blob))
            await asyncio.sleep(0)  # a store that answers at once must let the writer write

        async def read(writing: asyncio.Task[None]) -> None:
            await look()
            while not writing.done():
                await look()

        writing = asyncio.create_task(write())
        await asyncio.gather(writing, read(writing), read(writing))
        assert torn == []

    async def test_putting_and_removing_side_by_side_loses_nothing(self, store: BlobStore) -> None:
        async def churn(key: BlobKey) -> None:
            for _ in range(15):
                await store.put(key, key.encode())
                assert await store.get(key) == key.encode()
                await store.remove(key)
            await store.put(key, b"last")

        keys = [blob_key("churn", "0199c1f2-aaaa", number) for number in range(6)]
        await asyncio.gather(*(churn(key) for key in keys))
        assert await listed(store) == keys

    async def test_blobs_survive_reopening(self, open_store: OpenBlobStore) -> None:
        async with open_store() as store:
            await store.put(blob_key("a", "b"), b"kept")
        async with open_store() as again:
            assert await again.get(blob_key("a", "b")) == b"kept"
            assert await listed(again) == ["a/b"]

    async def test_two_that_are_open_see_the_same(self, open_store: OpenBlobStore) -> None:
        async with open_store() as one, open_store() as other:
            await one.put(blob_key("a"), b"x")
            assert await other.get(blob_key("a")) == b"x"
            await other.remove(blob_key("a"))
            assert await one.get(blob_key("a")) is None

    @pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.05, 0.2])
    async def test_a_put_that_is_cancelled_leaves_what_was_there_or_all_of_the_new(
        self, store: BlobStore, seconds: float
    ) -> None:
        before, after = b"before", b"a" * LARGE
        await store.put(blob_key("a"), before)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await store.put(blob_key("a"), after)
        assert await store.get(blob_key("a")) in (before, after)
        assert await listed(store) == ["a"]

    async def test_a_put_that_is_cancelled_leaves_nothing_behind(
        self, store: BlobStore, leftovers: Callable[[], Awaitable[int]]
    ) -> None:
        for _ in range(3):
            putting = asyncio.create_task(store.put(blob_key("a"), b"a" * LARGE))
            while not putting.done() and not await leftovers():
                await _storage_changes()
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)
            async with asyncio.timeout(self.patience):
                while await leftovers():  # what runs in a thread ends a little later
                    await _storage_changes()

    async def test_what_is_half_written_is_not_there(
        self, store: BlobStore, half_written: Callable[[BlobKey, bytes], Awaitable[None]]
    ) -> None:
        await half_written(blob_key("a", "b"), b"a" * LARGE)
        assert await store.get(blob_key("a", "b")) is None
        assert await listed(store) == []
        await store.remove(blob_key("a", "b"))
        await store.put(blob_key("a", "b"), b"whole")
        assert await store.get(blob_key("a", "b")) == b"whole"

    async def test_what_is_half_written_does_not_touch_what_was_there(
        self, store: BlobStore, half_written: Callable[[BlobKey, bytes], Awaitable[None]]
    ) -> None:
        await store.put(blob_key("a"), b"before")
        await half_written(blob_key("a"), b"a" * LARGE)
        assert await store.get(blob_key("a")) == b"before"
        assert await listed(store) == ["a"]

    async def test_it_says_that_it_is_there(self, store: BlobStore) -> None:
        assert isinstance(store, Ping)
        assert store.name == "blob_store"
        await store.ping()
        assert await listed(store) == []

    async def test_without_its_backend_every_call_says_so_in_bounded_time(self, unavailable: BlobStore) -> None:
        key = blob_key("a", "b")
        assert isinstance(unavailable, Ping)
        async with asyncio.timeout(self.patience):
            said = await asyncio.gather(
                unavailable.put(key, b"x"),
                unavailable.put(key, b"x" * LARGE),
                unavailable.get(key),
                unavailable.remove(key),
                listed(unavailable),
                listed(unavailable, "a/"),
                unavailable.ping(),
                return_exceptions=True,
            )
        assert [type(answer) for answer in said] == [PortUnavailable] * len(said)
        assert {answer.port for answer in said if isinstance(answer, PortUnavailable)} == {"blob_store"}

    async def test_without_its_backend_a_hostile_key_is_still_hostile(self, unavailable: BlobStore) -> None:
        with pytest.raises(InvalidValue):
            await unavailable.get(cast("BlobKey", "../a"))


async def listed(store: BlobStore, prefix: str = "") -> list[BlobKey]:
    """Return all keys that begin with `prefix`."""
    return [key async for key in store.keys(prefix)]


async def _storage_changes() -> None:
    """Let a moment pass: no port tells when something changes behind it."""
    await asyncio.sleep(0.001)
