"""What every blob store promises."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from application.conformance.contract import Contract
from application.ports.blob_store import BlobKey, BlobStore, blob_key
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

_LARGE = 32 * 2**20
_PAGE = 2 * 2**20


class BlobStoreContract(Contract):
    """Give `reopen`: a function that opens the same, at first empty, storage anew each time it is called."""

    @pytest.fixture
    def reopen(self) -> Callable[[], BlobStore]:
        """Return the function; a store that lives in memory returns the same one each time."""
        raise NotImplementedError("give your contract test the fixture `reopen`")

    @pytest.fixture
    def store(self, reopen: Callable[[], BlobStore]) -> BlobStore:
        return reopen()

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
        large = bytes(range(256)) * (_LARGE // 256)
        await store.put(blob_key("large"), large)
        assert await store.get(blob_key("large")) == large

    async def test_many_at_once_do_not_disturb_each_other(self, store: BlobStore) -> None:
        contents = {blob_key("at-once", f"{number:02}"): bytes([number]) * 10_000 for number in range(40)}
        await asyncio.gather(*(store.put(key, content) for key, content in contents.items()))
        got = await asyncio.gather(*(store.get(key) for key in contents))
        assert got == list(contents.values())

    async def test_writers_of_one_key_leave_one_of_their_contents(self, store: BlobStore) -> None:
        contents = [bytes([number]) * 100_000 for number in range(10)]
        await asyncio.gather(*(store.put(blob_key("one"), content) for content in contents))
        assert await store.get(blob_key("one")) in contents

    async def test_a_reader_never_sees_half_a_blob(self, store: BlobStore) -> None:
        contents = [bytes([number]) * _PAGE for number in range(2)]
        await store.put(blob_key("one"), contents[0])
        seen: list[bytes | None] = []

        async def write() -> None:
            for number in range(10):
                await store.put(blob_key("one"), contents[number % 2])

        async def read(writing: asyncio.Task[None]) -> None:
            seen.append(await store.get(blob_key("one")))
            while not writing.done():
                seen.append(await store.get(blob_key("one")))

        writing = asyncio.create_task(write())
        await asyncio.gather(writing, read(writing), read(writing))
        assert all(blob in contents for blob in seen)

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

    async def test_blobs_survive_reopening(self, reopen: Callable[[], BlobStore]) -> None:
        await reopen().put(blob_key("a", "b"), b"kept")
        again = reopen()
        assert await again.get(blob_key("a", "b")) == b"kept"
        assert await listed(again) == ["a/b"]


async def listed(store: BlobStore, prefix: str = "") -> list[BlobKey]:
    """Return all keys that begin with `prefix`."""
    return [key async for key in store.keys(prefix)]
