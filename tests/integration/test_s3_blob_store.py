import asyncio
import logging
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from botocore.client import BaseClient

from adapters.blob_store import s3 as adapter
from adapters.blob_store.s3 import LONGEST_ADDRESS, PART, S3BlobStore, open_s3_blob_store
from application.conformance.blob_store import HOSTILE_KEYS, listed
from application.ports.blob_store import BlobKey, blob_key
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from domain.errors import InvalidValue
from tests.relay import Relay
from tests.s3_server import ACCESS_KEY, READER_KEY, SECRET_KEY, S3Server

PREFIX = "facepass"
KEY = blob_key("a", "b")
LARGE = bytes(range(256)) * (10 * 2**20 // 256)
"""Two parts."""

HASTY = 2.0
"""Seconds for a request to a server that does not answer."""


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


@pytest.fixture
async def store(s3: S3Server, bucket: str) -> AsyncIterator[S3BlobStore]:
    async with opened(s3.url, bucket) as store:
        yield store


@pytest.fixture
def behind(s3: S3Server) -> Iterator[BaseClient]:
    with closing(s3.client()) as client:
        yield client


@pytest.fixture
async def relay(s3: S3Server) -> AsyncIterator[Relay]:
    async with Relay(s3.url) as relay:
        yield relay


def opened(
    url: str,
    bucket: str,
    **changed: Any,  # noqa: ANN401 - the settings of `open_s3_blob_store`, each of its own type
) -> AbstractAsyncContextManager[S3BlobStore]:
    usual = {"prefix": PREFIX, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return open_s3_blob_store(bucket=bucket, endpoint=url, **{**usual, **changed})


@asynccontextmanager
async def answering(head: str, body: str = "", *, scheme: str = "http") -> AsyncIterator[str]:
    """Serve one answer to whatever is asked, as something that is not our store might."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(2**16)
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def uploads(behind: BaseClient, bucket: str) -> list[str]:
    return [upload["Key"] for upload in behind.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


def xml(code: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{SECRET_KEY}</Message></Error>'


class TestAddresses:
    async def test_what_is_put_by_address_is_got(self, store: S3BlobStore) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.put(await store.url_to_put(KEY, seconds=60), content=b"sent past us")
        assert answer.status_code == 200
        assert await store.get(KEY) == b"sent past us"
        assert await listed(store) == [KEY]

    async def test_what_was_put_is_got_by_address(self, store: S3BlobStore) -> None:
        await store.put(KEY, b"kept")
        async with httpx.AsyncClient() as client:
            answer = await client.get(await store.url_to_get(KEY, seconds=60))
        assert (answer.status_code, answer.content) == (200, b"kept")

    async def test_an_address_is_for_its_own_key_and_method(self, store: S3BlobStore) -> None:
        other = blob_key("a", "c")
        await store.put(KEY, b"kept")
        await store.put(other, b"of somebody else")
        to_get, to_put = await store.url_to_get(KEY, seconds=60), await store.url_to_put(KEY, seconds=60)
        async with httpx.AsyncClient() as client:
            refused = [
                await client.get(to_get.replace(KEY, other)),
                await client.put(to_put.replace(KEY, other), content=b"x"),
                await client.put(to_get, content=b"x"),
                await client.get(to_put),
                await client.delete(to_put),
                await client.get(to_get.replace("X-Amz-Expires=60", "X-Amz-Expires=600")),
            ]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        assert await store.get(KEY) == b"kept"
        assert await store.get(other) == b"of somebody else"

    async def test_an_address_is_refused_when_its_time_is_over(self, store: S3BlobStore) -> None:
        await store.put(KEY, b"kept")
        to_get, to_put = await store.url_to_get(KEY, seconds=1), await store.url_to_put(KEY, seconds=1)
        async with httpx.AsyncClient() as client:
            deadline = time.monotonic() + 30.0
            while (await client.get(to_get)).status_code == 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert (await client.get(to_get)).status_code == 403
            assert (await client.put(to_put, content=b"late")).status_code == 403
        assert await store.get(KEY) == b"kept"

    @pytest.mark.parametrize("seconds", [-1, 0, LONGEST_ADDRESS + 1])
    async def test_an_address_is_for_a_short_time(self, store: S3BlobStore, seconds: int) -> None:
        for address in (store.url_to_put, store.url_to_get):
            with pytest.raises(InvalidValue) as refused:
                await address(KEY, seconds=seconds)
            assert refused.value.field == "seconds"

    async def test_no_address_for_a_hostile_key(self, store: S3BlobStore) -> None:
        for key in HOSTILE_KEYS.values():
            for address in (store.url_to_put, store.url_to_get):
                with pytest.raises(InvalidValue):
                    await address(BlobKey(key), seconds=60)


class TestWire:
    @pytest.mark.parametrize(
        ("settings", "kept"),
        [
            ({}, {}),
            ({"encryption": "AES256"}, {"ServerSideEncryption": "AES256"}),
            ({"encryption": "aws:kms"}, {"ServerSideEncryption": "aws:kms"}),
            (
                {"encryption": "aws:kms", "kms_key": "key-of-ours"},
                {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key-of-ours"},
            ),
        ],
        ids=["none", "AES256", "kms", "kms with key"],
    )
    async def test_the_stores_own_encryption_is_asked_for(
        self, s3: S3Server, behind: BaseClient, settings: dict[str, str], kept: dict[str, str]
    ) -> None:
        bucket = s3.new_bucket()
        async with opened(s3.url, bucket, **settings) as store:
            for content in (b"in one request", LARGE):
                await store.put(KEY, content)
                head = behind.head_object(Bucket=bucket, Key=f"{PREFIX}/{KEY}")
                assert {name: head[name] for name in ("ServerSideEncryption", "SSEKMSKeyId") if name in head} == kept

    @pytest.mark.parametrize(
        ("size", "parts"), [(0, None), (PART, None), (PART + 1, 2), (2 * PART, 2), (2 * PART + 1, 3)]
    )
    async def test_what_is_larger_than_a_part_goes_in_parts(
        self, store: S3BlobStore, bucket: str, behind: BaseClient, size: int, parts: int | None
    ) -> None:
        content = b"\x07" * size
        await store.put(KEY, content)
        # The tag of an object that came in parts ends with their number.
        _, dash, number = behind.head_object(Bucket=bucket, Key=f"{PREFIX}/{KEY}")["ETag"].strip('"').partition("-")
        assert (int(number) if dash else None) == parts
        assert await store.get(KEY) == content

    async def test_nothing_is_sent_that_only_amazon_understands(self, relay: Relay, bucket: str) -> None:
        heads: list[bytes] = []

        def note(sent: bytes) -> bool:
            heads.append(sent.partition(b"\r\n\r\n")[0])
            return False

        relay.breaks_up = note
        async with opened(relay.url, bucket) as store:
            await store.put(KEY, b"small")
            await store.put(KEY, LARGE)
            await store.get(KEY)
            await store.remove(KEY)
        said = b"\n".join(heads).lower()
        assert f"put /{bucket}/{PREFIX}/{KEY}".encode() in said
        assert b"partnumber=2" in said
        for word in (b"x-amz-checksum", b"x-amz-sdk-checksum", b"aws-chunked", b"trailer"):
            assert word not in said

    async def test_a_connection_that_breaks_is_tried_again(self, relay: Relay, bucket: str) -> None:
        async with opened(relay.url, bucket) as store:
            breaks = iter([True, True])
            relay.breaks_up = lambda _: next(breaks, False)
            await store.put(KEY, b"kept")
            assert list(breaks) == []
            assert await store.get(KEY) == b"kept"

    async def test_more_transfers_than_connections_wait_for_each_other(self, s3: S3Server, bucket: str) -> None:
        async with opened(s3.url, bucket, connections=2) as store:
            keys = [blob_key("many", number) for number in range(10, 40)]
            await asyncio.gather(*(store.put(key, key.encode()) for key in keys))
            assert await asyncio.gather(*(store.get(key) for key in keys)) == [key.encode() for key in keys]

    async def test_connections_that_stay_taken_are_busy_and_it_still_answers_a_ping(
        self, s3: S3Server, bucket: str
    ) -> None:
        async with opened(s3.url, bucket, connections=1, request_timeout=HASTY) as store:
            await store.put(KEY, LARGE)
            await store._free.acquire()
            answer = await store._client.get_object(Bucket=bucket, Key=f"{PREFIX}/{KEY}")
            async with answer["Body"]:
                with pytest.raises(PortBusy):
                    await store.get(KEY)
                await store.ping()
            store._free.release()
            assert await store.get(KEY) == LARGE

    async def test_keys_and_contents_never_get_into_the_log(
        self, s3: S3Server, bucket: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            async with opened(s3.url, bucket) as store:
                await store.put(KEY, b"sealed content")
                await store.url_to_get(KEY, seconds=60)
        with pytest.raises(PortRejected):
            async with opened(s3.url, bucket, secret_key="another-secret"):
                pass
        for word in (SECRET_KEY, "another-secret", ACCESS_KEY, "sealed content", "Signature"):
            assert word not in caplog.text


class TestBucket:
    async def test_stores_with_different_prefixes_do_not_see_each_other(self, s3: S3Server, bucket: str) -> None:
        prefixes = ["", "a", "ab", "/a/b/"]
        for prefix in prefixes[1:]:
            async with opened(s3.url, bucket, prefix=prefix) as store:
                await store.put(blob_key("x"), prefix.encode())
        for prefix in prefixes[1:]:
            async with opened(s3.url, bucket, prefix=prefix) as store:
                assert await store.get(blob_key("x")) == prefix.encode()
        async with opened(s3.url, bucket, prefix="ab") as store:
            assert await listed(store) == ["x"]
        async with opened(s3.url, bucket, prefix="") as store:
            assert await listed(store) == ["a/b/x", "a/x", "ab/x"]

    async def test_foreign_objects_are_not_listed(self, store: S3BlobStore, bucket: str, behind: BaseClient) -> None:
        await store.put(KEY, b"x")
        for name in (f"{PREFIX}/", f"{PREFIX}/a/", f"{PREFIX}/README.md", f"{PREFIX}x/a", "a", PREFIX):
            behind.put_object(Bucket=bucket, Key=name, Body=b"foreign")
        assert await listed(store) == [KEY]

    async def test_the_trial_leaves_nothing(self, store: S3BlobStore, bucket: str, behind: BaseClient) -> None:
        assert behind.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
        assert await listed(store) == []

    async def test_tidy_ends_abandoned_uploads_once_an_hour_and_no_others(
        self, store: S3BlobStore, bucket: str, behind: BaseClient
    ) -> None:
        # moto says of each upload that it was begun in 2010.
        foreign = [f"{PREFIX}/README.md", "other/a"]
        for name in (*foreign, f"{PREFIX}/{KEY}"):
            behind.create_multipart_upload(Bucket=bucket, Key=name)
        await store.tidy()
        assert sorted(uploads(behind, bucket)) == sorted(foreign)
        behind.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/{KEY}")
        await store.tidy()
        assert f"{PREFIX}/{KEY}" in uploads(behind, bucket)

    async def test_tidy_spares_uploads_under_way(
        self, store: S3BlobStore, bucket: str, behind: BaseClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adapter, "ABANDONED_AFTER", 100 * 365 * 86_400.0)
        behind.create_multipart_upload(Bucket=bucket, Key=f"{PREFIX}/{KEY}")
        await store.tidy()
        assert uploads(behind, bucket) == [f"{PREFIX}/{KEY}"]


class TestOpening:
    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"bucket": "missing-bucket"}, "there is no such bucket"),
            ({"bucket": "No Bucket!"}, "name is not one that S3 allows"),
            ({"access_key": "unknown-access-key"}, "does not know the access key"),
            ({"secret_key": "another-secret"}, "secret key does not belong to the access key"),
            ({"secret_key": None}, "given both, or neither"),
            ({"access_key": READER_KEY}, "refuses PutObject: a right is missing"),
            ({"kms_key": "key-of-ours"}, "goes with the encryption aws:kms alone"),
            ({"url": "127.0.0.1:9000"}, "endpoint is not an address"),
            ({"url": "http://"}, "endpoint is not an address"),
        ],
        ids=str,
    )
    async def test_what_is_wrong_with_the_settings_is_said(
        self, s3: S3Server, bucket: str, changed: dict[str, Any], reason: str
    ) -> None:
        settings = {"url": s3.url, "bucket": bucket, **changed}
        with pytest.raises(PortRejected, match=reason) as refused:
            async with opened(**settings):
                pytest.fail("it has opened")
        assert refused.value.port == "blob_store"
        for word in (SECRET_KEY, "another-secret", ACCESS_KEY, READER_KEY, urlsplit(s3.url).netloc, bucket):
            assert word not in refused.value.message

    @pytest.mark.parametrize(
        ("head", "body", "reason"),
        [
            ("403 Forbidden", xml("AccessDenied"), "refuses ListObjectsV2: a right is missing"),
            ("403 Forbidden", xml("RequestTimeTooSkewed"), "clock"),
            ("400 Bad Request", xml("ExpiredToken"), "session token has expired"),
            ("400 Bad Request", xml("AuthorizationHeaderMalformed"), "another region"),
            ("400 Bad Request", xml("KMS.DisabledException"), "KMS key"),
            ("501 Not Implemented", xml("NotImplemented"), "cannot do this"),
            ("403 Forbidden", "", "credentials are wrong, or a right is missing"),
            ("404 Not Found", "<html>nothing here</html>", "what answers there is not S3"),
            ("200 OK", "<html>welcome</html>", "does not give back what was written"),
        ],
    )
    async def test_what_the_store_refuses_is_said(self, bucket: str, head: str, body: str, reason: str) -> None:
        async with answering(head, body) as url:
            with pytest.raises(PortRejected, match=reason) as refused:
                async with opened(url, bucket):
                    pytest.fail("it has opened")
        assert SECRET_KEY not in refused.value.message

    @pytest.mark.parametrize("code", ["SlowDown", "InternalError", "ServiceUnavailable"])
    async def test_a_store_in_trouble_is_unavailable(self, bucket: str, code: str) -> None:
        async with answering("503 Service Unavailable", xml(code)) as url:
            with pytest.raises(PortUnavailable, match="in trouble"):
                async with opened(url, bucket):
                    pytest.fail("it has opened")

    async def test_a_port_that_nobody_listens_on_is_unavailable(self, relay: Relay, bucket: str) -> None:
        relay.cut()
        with pytest.raises(PortUnavailable, match="cannot be reached") as refused:
            async with opened(relay.url, bucket):
                pytest.fail("it has opened")
        assert urlsplit(relay.url).netloc not in refused.value.message

    async def test_a_certificate_that_is_none_is_rejected(self, bucket: str) -> None:
        async with answering("200 OK", scheme="https") as url:
            with pytest.raises(PortRejected, match="TLS"):
                async with opened(url, bucket):
                    pytest.fail("it has opened")

    async def test_without_keys_the_sdk_looks_for_them(
        self, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        async with opened(s3.url, bucket, access_key=None, secret_key=None) as store:
            await store.put(KEY, b"x")

    async def test_no_keys_anywhere_is_said(
        self, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(PortRejected, match="access key and secret key are needed"):
            async with opened(s3.url, bucket, access_key=None, secret_key=None):
                pytest.fail("it has opened")


class TestOutages:
    async def test_a_store_that_hangs_is_unavailable_and_comes_back(self, s3: S3Server, bucket: str) -> None:
        async with opened(s3.url, bucket, request_timeout=HASTY) as store:
            await store.put(KEY, b"kept")
            s3.freeze()
            try:
                async with asyncio.timeout(60.0):
                    said = await asyncio.gather(
                        store.put(blob_key("new"), b"x"),
                        store.put(blob_key("new"), LARGE),
                        store.get(KEY),
                        store.remove(KEY),
                        listed(store),
                        store.tidy(),
                        store.ping(),
                        return_exceptions=True,
                    )
                with pytest.raises(PortUnavailable, match="in time"):
                    async with opened(s3.url, bucket, request_timeout=HASTY):
                        pytest.fail("it has opened")
            finally:
                s3.thaw()
            assert [type(answer) for answer in said] == [PortUnavailable] * len(said)
            await store.ping()
            await store.put(KEY, b"kept again")
            assert await store.get(KEY) == b"kept again"

    async def test_a_body_that_breaks_off_is_never_taken_for_whole(
        self, store: S3BlobStore, relay: Relay, bucket: str
    ) -> None:
        await store.put(KEY, LARGE)
        async with opened(relay.url, bucket) as far:
            answered = 0

            def breaks(sent: bytes) -> bool:
                nonlocal answered
                answered += len(sent)
                return answered > len(LARGE) // 2

            relay.breaks_down = breaks
            with pytest.raises(PortUnavailable):
                await far.get(KEY)
            relay.breaks_down = lambda _: False
            assert await far.get(KEY) == LARGE

    async def test_a_body_that_stands_still_ends_in_time(self, s3: S3Server, relay: Relay, bucket: str) -> None:
        async with opened(relay.url, bucket, request_timeout=HASTY) as store:
            await store.put(KEY, LARGE)

            def freezes(sent: bytes) -> bool:
                if sent.startswith(b"HTTP/1.1 200"):
                    s3.freeze()
                return False

            relay.breaks_down = freezes
            try:
                async with asyncio.timeout(60.0):
                    with pytest.raises(PortUnavailable, match="in time"):
                        await store.get(KEY)
            finally:
                s3.thaw()

    async def test_a_large_body_on_a_slow_line_has_more_time_than_a_small_one(
        self, store: S3BlobStore, relay: Relay, bucket: str
    ) -> None:
        content = bytes(5 * PART)
        await store.put(KEY, content)
        async with opened(relay.url, bucket, request_timeout=HASTY) as far:
            relay.lag = 1.3 * HASTY * 2**16 / len(content)
            begun = time.monotonic()
            assert await far.get(KEY) == content
        assert time.monotonic() - begun > HASTY, "the line was not slow"

    async def test_an_upload_that_fails_is_ended_and_leaves_what_was_there(
        self, store: S3BlobStore, relay: Relay, bucket: str, behind: BaseClient
    ) -> None:
        await store.put(KEY, b"before")
        async with opened(relay.url, bucket) as far:
            tries: list[int] = []

            def breaks(sent: bytes) -> bool:
                if second := b"partNumber=2" in sent:
                    tries.append(len(uploads(behind, bucket)))
                return second

            relay.breaks_up = breaks
            with pytest.raises(PortUnavailable):
                await far.put(KEY, LARGE)
        assert set(tries) == {1}
        assert uploads(behind, bucket) == []
        assert await store.get(KEY) == b"before"

    async def test_an_upload_that_is_cancelled_is_ended(self, relay: Relay, bucket: str, behind: BaseClient) -> None:
        async with opened(relay.url, bucket) as store:
            under_way = asyncio.Event()

            def notices(sent: bytes) -> bool:
                if b"partNumber=2" in sent:
                    under_way.set()
                return False

            relay.breaks_up = notices
            putting = asyncio.create_task(store.put(KEY, LARGE))
            await under_way.wait()
            assert uploads(behind, bucket) == [f"{PREFIX}/{KEY}"]
            putting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await putting
            assert uploads(behind, bucket) == []
            assert await store.get(KEY) is None

    async def test_a_server_that_is_killed_during_an_upload_is_unavailable(self) -> None:
        with S3Server() as own:
            bucket = own.new_bucket()
            async with Relay(own.url) as relay, opened(relay.url, bucket) as store:

                def kills(sent: bytes) -> bool:
                    if b"partNumber=2" in sent:
                        own.kill()
                    return False

                relay.breaks_up = kills
                with pytest.raises(PortUnavailable):
                    await store.put(KEY, LARGE)
                with pytest.raises(PortUnavailable):
                    await store.get(KEY)

    async def test_a_bucket_that_is_gone_is_not_an_empty_one(
        self, store: S3BlobStore, bucket: str, behind: BaseClient
    ) -> None:
        behind.delete_bucket(Bucket=bucket)
        for call in (store.get(KEY), store.put(KEY, b"x"), store.remove(KEY), listed(store)):
            with pytest.raises(PortRejected, match="no such bucket"):
                await call
        with pytest.raises(PortUnavailable, match="no such bucket"):
            await store.ping()
