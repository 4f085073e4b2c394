"""Blobs as objects of one bucket, in any store that speaks S3."""

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from secrets import token_hex
from typing import Any, Final, Literal, final

import aioboto3
import aiohttp
from aiobotocore.client import AioBaseClient
from aiobotocore.config import AioConfig
from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from application.ports.blob_store import BlobKey, BlobStore, PresignedUrls, checked_blob_key
from application.ports.errors import PortBusy, PortRejected, PortUnavailable
from application.ports.ping import Ping
from application.ports.upkeep import Upkeep
from domain.errors import InvalidValue, PortError

PORT: Final = "blob_store"

PART: Final = 8 * 2**20
"""Bytes from which a body is sent in parts, and of a part: the SDK's own default. S3 takes no part below 5 MiB but the
last, and 10,000 of them (Amazon S3 user guide, "multipart upload limits"): 78 GiB, more than comes as `bytes`."""

LONGEST_ADDRESS: Final = 3600
"""Seconds for which an address may be good. SigV4 allows a week; ours are made for one transfer that begins now."""

ABANDONED_AFTER: Final = 86_400.0
"""Seconds after which an upload that did not end is taken for dead. MinIO's own sweep waits as long."""

Encryption = Literal["AES256", "aws:kms"]
"""Who keeps the key of the store's own encryption: the store, or its key management service."""

_ATTEMPTS: Final = 3
_CONNECT: Final = 2.0
_SILENCE: Final = 0.25
"""Share of the time for a request after which one attempt gives up. Three of them and the pauses between, at most one
and two seconds (botocore, `retries.standard.ExponentialBackoff`), fit into 20 seconds."""

_ASIDE: Final = 2
"""Connections that no transfer takes: pings, and the end of an upload that failed, wait for nobody."""

_PING_LIMIT: Final = 2.0
_ABORT_LIMIT: Final = 5.0
_SWEEP_EVERY: Final = 3600.0

_BEGINNING: Final = re.compile(r"[a-z0-9/-]*")
_LOGGERS: Final = ("aiobotocore", "aioboto3", "boto3", "botocore")

_SERVER_ERROR: Final = 500
_NEVER: Final = "NotImplemented"
_PASSING: Final = {
    "429",
    "InternalError",
    "NoSuchUpload",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_REFUSALS: Final[Mapping[str, str]] = {
    "NoSuchBucket": "there is no such bucket",
    "404": "there is no such bucket, or what answers there is not S3",
    "InvalidBucketName": "the bucket's name is not one that it allows",
    "InvalidAccessKeyId": "it does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "InvalidToken": "the session token is not a good one",
    "ExpiredToken": "the session token has expired",
    "RequestTimeTooSkewed": "its clock and ours differ by more than it allows",
    "PermanentRedirect": "the bucket lies in another region",
    "301": "the bucket lies in another region",
    "AuthorizationHeaderMalformed": "the bucket lies in another region",
    "403": "the credentials are wrong, or a right is missing",
}


@asynccontextmanager
async def open_s3_blob_store(
    *,
    bucket: str,
    prefix: str = "",
    endpoint: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    encryption: Encryption | None = None,
    kms_key: str | None = None,
    connections: int = 16,
    request_timeout: float = 20.0,
) -> AsyncIterator["S3BlobStore"]:
    """Open a store for a block, after a trial of everything that it will need.

    Args:
        bucket: A bucket that is there already. With versioning it keeps what was removed, sealed as it came.
        prefix: What all keys begin with there, as a folder. Bucket or prefix belong to this service alone.
        endpoint: `https://host:port` of an S3-compatible store, which is addressed by path, since hardly any of them
            has a host name for each bucket; None is Amazon S3.
        region: None is what the SDK finds, or the one that S3 began with, which most compatible stores answer to.
        access_key: None is the SDK's own chain: environment, profile, container, instance.
        secret_key: Beside `access_key`.
        encryption: What is asked for with each write; None leaves it to the bucket's own default.
        kms_key: Id of the key for `aws:kms`; None is the account's default key.
        connections: Transfers at the same time; more of them wait for `request_timeout`, and then are `PortBusy`.
        request_timeout: Seconds for one request with its retries, and for each `PART` of a body that is read: the
            slowest line that is waited for.

    Raises:
        PortRejected: A wrong name, wrong credentials, a missing right, or no S3.
        PortUnavailable: It does not answer.
    """
    # At debug the SDK writes bodies, signed headers and session tokens into the log.
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    if (access_key is None) != (secret_key is None):
        raise PortRejected(PORT, "access key and secret key are given both, or neither of them")
    config = AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=min(_CONNECT, request_timeout * _SILENCE),
        read_timeout=request_timeout * _SILENCE,
        max_pool_connections=connections + _ASIDE,
        # Since botocore 1.36 each write carries a CRC32 in a trailer or header, which many compatible stores refuse,
        # and which a presigned PUT would demand of the client. The signature covers the body's SHA-256 anyway.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    async with AsyncExitStack() as stack:
        try:
            with translated():
                session = aioboto3.Session(access_key, secret_key, region_name=region)
                client = await stack.enter_async_context(session.client("s3", endpoint_url=endpoint, config=config))
        except ValueError as error:
            raise PortRejected(PORT, "its endpoint is not an address") from error
        store = S3BlobStore(
            client,
            bucket=bucket,
            prefix=prefix,
            encryption=encryption,
            kms_key=kms_key,
            connections=connections,
            request_timeout=request_timeout,
        )
        await store.try_out()
        yield store


@final
class S3BlobStore(BlobStore, PresignedUrls, Ping, Upkeep):
    """One object a blob, named by its key; a large one is sent in parts and appears when the last has arrived.

    How long a call may take, with t the `request_timeout`: t for a connection, t for a request with its retries, and
    to read a body of n parts n times t more. Sending one is n + 2 requests. A body that breaks off while it is read is
    not asked for again: the SDK's retries end where it begins.
    """

    def __init__(
        self,
        client: AioBaseClient,
        *,
        bucket: str,
        prefix: str = "",
        encryption: Encryption | None = None,
        kms_key: str | None = None,
        connections: int = 16,
        request_timeout: float = 20.0,
    ) -> None:
        """Use an open client, which has two connections more than `connections`."""
        self._client: Final = client
        self._bucket: Final = bucket
        self._prefix: Final = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._encryption: Final = _encryption(encryption, kms_key)
        self._free: Final = asyncio.Semaphore(connections)
        self._timeout: Final = request_timeout
        self._sweep_at = -math.inf

    @property
    def name(self) -> str:
        return PORT

    async def try_out(self) -> None:
        """List, write, read and remove: a missing right shows now, not at the first enrolment.

        Raises `PortRejected` and `PortUnavailable`.
        """
        # No blob's key has a dot, so nobody ever sees it, even where it stays.
        trial = {"Bucket": self._bucket, "Key": f"{self._prefix}.trial-{token_hex(8)}"}
        # Not HEAD, whose answer has no body that says what is wrong.
        async with self._connection():
            await self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        written = token_hex(16).encode()
        async with self._connection():
            await self._client.put_object(**trial, Body=written, **self._encryption)
        async with self._connection(), (await self._client.get_object(**trial))["Body"] as body:
            if await body.read() != written:
                raise PortRejected(PORT, "what answers there does not give back what was written to it")
        async with self._connection():
            await self._client.delete_object(**trial)

    async def put(self, key: BlobKey, content: bytes) -> None:
        blob = self._blob(key)
        if len(content) > PART:
            await self._put_in_parts(blob, content)
            return
        async with self._connection():
            await self._client.put_object(**blob, Body=content, **self._encryption)

    async def get(self, key: BlobKey) -> bytes | None:
        blob = self._blob(key)
        async with self._connection() as limit:
            try:
                found = await self._client.get_object(**blob)
            except self._client.exceptions.NoSuchKey:
                return None
            async with found["Body"] as body:
                patience = self._timeout * math.ceil(found.get("ContentLength", 0) / PART)
                limit.reschedule(asyncio.get_running_loop().time() + self._timeout + patience)
                return bytes(await body.read())

    async def remove(self, key: BlobKey) -> None:
        blob = self._blob(key)
        async with self._connection():
            await self._client.delete_object(**blob)

    async def keys(self, prefix: str) -> AsyncIterator[BlobKey]:
        if not _BEGINNING.fullmatch(prefix):
            return
        async for page in self._pages("list_objects_v2", prefix):
            for entry in page.get("Contents", ()):
                if key := self._key(entry["Key"]):
                    yield key

    async def url_to_put(self, key: BlobKey, *, seconds: int) -> str:
        """Sign method, key and time; S3 cannot be told a largest size or a content beforehand.

        The store's encryption is the bucket's default here: asked for by us, the client would have to send our headers.
        """
        return await self._presigned("put_object", key, seconds)

    async def url_to_get(self, key: BlobKey, *, seconds: int) -> str:
        return await self._presigned("get_object", key, seconds)

    async def ping(self) -> None:
        try:
            with translated():
                async with asyncio.timeout(_PING_LIMIT):
                    await self._client.head_bucket(Bucket=self._bucket)
        except PortRejected as error:
            raise PortUnavailable(PORT, error.message) from error

    async def tidy(self) -> None:
        """End the uploads that processes left unfinished when they were killed, once an hour.

        MinIO lists uploads by exact key only, so none are found there; it ends them itself after a day.
        """
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + _SWEEP_EVERY
        async for page in self._pages("list_multipart_uploads", ""):
            for upload in page.get("Uploads", ()):
                if self._key(upload["Key"]) and time.time() - upload["Initiated"].timestamp() > ABANDONED_AFTER:
                    await self._abort({"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]})

    async def _put_in_parts(self, blob: Mapping[str, str], content: bytes) -> None:
        """One part after the other: over one connection, so that large bodies leave the others to small ones."""
        async with self._connection():
            begun = await self._client.create_multipart_upload(**blob, **self._encryption)
        upload = {**blob, "UploadId": begun["UploadId"]}
        try:
            parts = [
                await self._put_part(upload, number, content[begin : begin + PART])
                for number, begin in enumerate(range(0, len(content), PART), 1)
            ]
            async with self._connection():
                await self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            # What cannot be ended now is swept by `tidy`; what went wrong first is what is told.
            with suppress(PortError):
                await self._abort(upload)
            raise

    async def _put_part(self, upload: Mapping[str, str], number: int, content: bytes) -> Mapping[str, object]:
        async with self._connection():
            taken = await self._client.upload_part(**upload, PartNumber=number, Body=content)
        return {"PartNumber": number, "ETag": taken["ETag"]}

    async def _abort(self, upload: Mapping[str, str]) -> None:
        with translated(), suppress(self._client.exceptions.NoSuchUpload):
            async with asyncio.timeout(_ABORT_LIMIT):
                await self._client.abort_multipart_upload(**upload)

    async def _pages(self, operation: str, prefix: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the answers to a listing; between two of them no connection is taken and no time counted."""
        walk = self._client.get_paginator(operation).paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
        async with aclosing(aiter(walk)) as pages:
            while True:
                async with self._connection():
                    page = await anext(pages, None)
                if page is None:
                    return
                yield page

    async def _presigned(self, operation: str, key: BlobKey, seconds: int) -> str:
        blob = self._blob(key)
        if not 1 <= seconds <= LONGEST_ADDRESS:
            raise InvalidValue(f"an address is good for 1 to {LONGEST_ADDRESS} seconds", field="seconds")
        # It asks nobody, unless the chain's credentials have to be renewed.
        with translated():
            async with asyncio.timeout(self._timeout):
                return str(await self._client.generate_presigned_url(operation, Params=blob, ExpiresIn=seconds))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncio.Timeout]:
        """Wait for one of the connections, and bound what is done with it."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError as error:
            raise PortBusy(PORT, "all connections are in use") from error
        try:
            with translated():
                async with asyncio.timeout(self._timeout) as limit:
                    yield limit
        finally:
            self._free.release()

    def _blob(self, key: BlobKey) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked_blob_key(key)}

    def _key(self, name: str) -> BlobKey | None:
        """Return the key of an object, None where it is not one of ours."""
        try:
            return checked_blob_key(name.removeprefix(self._prefix))
        except InvalidValue:
            return None


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the SDK says into the port's errors.

    Its messages hold addresses and names of keys, so none of them gets into ours.
    """
    try:
        yield
    except sdk.ClientError as error:
        raise _answered(error) from error
    except (sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError) as error:
        raise PortRejected(PORT, "access key and secret key are needed, and were not found") from error
    except sdk.SSLError as error:
        raise PortRejected(PORT, "no trusted TLS connection to it can be made") from error
    except ResponseParserError as error:
        raise PortRejected(PORT, "what answers there is not S3") from error
    except (TimeoutError, sdk.ReadTimeoutError, sdk.ConnectTimeoutError) as error:
        raise PortUnavailable(PORT, "it did not answer in time") from error
    except (sdk.ConnectionError, sdk.EndpointConnectionError) as error:
        raise PortUnavailable(PORT, "it cannot be reached") from error
    except (sdk.HTTPClientError, sdk.IncompleteReadError, aiohttp.ClientError, OSError) as error:
        raise PortUnavailable(PORT, "the connection was lost") from error
    except sdk.ParamValidationError as error:
        raise PortRejected(PORT, "the bucket's name is not one that S3 allows") from error
    except sdk.BotoCoreError as error:
        raise PortRejected(PORT, f"its settings cannot be used ({type(error).__name__})") from error


def _answered(error: sdk.ClientError) -> PortError:
    """Return what an answer other than success means."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code") or status)
    if code in _PASSING or (status >= _SERVER_ERROR and code != _NEVER):
        return PortUnavailable(PORT, "it answers that it is in trouble, or has too much to do")
    if code.startswith("KMS."):
        return PortRejected(PORT, "the KMS key cannot be used")
    known = _REFUSALS.get(code)
    # The operation's name is the SDK's: it says which right it is (`PutObject`).
    return PortRejected(PORT, known or f"it refuses {error.operation_name}: a right is missing, or it cannot do this")


def _encryption(asked: Encryption | None, kms_key: str | None) -> Mapping[str, str]:
    """Return what each write asks for."""
    if kms_key and asked != "aws:kms":
        raise PortRejected(PORT, "a KMS key goes with the encryption aws:kms alone")
    key = {"SSEKMSKeyId": kms_key} if kms_key else {}
    return {"ServerSideEncryption": asked, **key} if asked else {}
