"""`python -m entrypoints.wiring.trial PORT NAME`: the process in which the kit runs against one adapter.

It opens the adapter as the service does, but for a space, a prefix or a name of the kit's own, and writes what happens
to its standard output, one JSON object of `checks.Event` a line.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, final

import msgspec

from application.ports.blob_store import BlobStore
from application.ports.errors import PortRejected
from application.ports.face_embedder import FaceEmbedder
from application.ports.job_queue import JobQueue
from application.ports.vector_index import Droppable, VectorIndex
from domain.errors import FacepassError
from entrypoints.settings import PREFIX, ImageSettings, Settings, SettingsError, process_environment, read_settings
from entrypoints.wiring.adapters import BUILT_IN, Port, extra_of, third_party
from entrypoints.wiring.checks import Began, Collected, Done, Event, Outcome, Promise, Refused
from entrypoints.wiring.indexes import IndexPools, opened_elsewhere, opened_index
from entrypoints.wiring.start_error import StartError
from entrypoints.wiring.startup import opened

Open = Callable[[str], AbstractAsyncContextManager[Any]]
"""As `application.conformance.plugin` has it, which is imported when the kit runs: pytest is an extra."""


def settings_for(port: Port, name: str) -> Settings:
    """Return the settings with which the service would run this adapter.

    Those of the port, or of its second adapter where that is the one; and the image limits that the kit knows.
    """
    if port not in OPENERS:
        raise StartError(
            "the kit needs a second one for this: subclass application.conformance.master_key.MasterKeyContract in a "
            "test of your own"
        )
    settings = msgspec.structs.replace(read_settings(), image=ImageSettings())
    following = getattr(settings, f"next_{port.value}", None)
    if getattr(settings, port.value).backend == name:
        return settings
    if following is not None and following.backend == name:
        return msgspec.structs.replace(settings, **{port.value: following})
    # Read once more, so that what this adapter needs is asked for by the setting's name.
    chosen = {port.setting: name, f"{PREFIX}HTTP__PROCESSES": "1"}
    return msgspec.structs.replace(read_settings({**process_environment(), **chosen}), image=ImageSettings())


@asynccontextmanager
async def vector_indexes(settings: Settings) -> AsyncIterator[Open]:
    """Open indexes of the kit's space, and take away behind them what held that space."""
    from application.conformance.vector_index import SPACE  # noqa: PLC0415 - pytest is an extra

    chosen = settings.vector_index
    if chosen.backend == "pgvector":
        async with opened(settings) as container:
            pools = await container.get(IndexPools)
            yield lambda _: opened_index(chosen, SPACE, pools)
            await _drop(opened_index(chosen, SPACE, pools))
        return
    yield lambda _: opened_elsewhere(chosen, SPACE)
    if chosen.backend == "qdrant":
        await _drop(opened_elsewhere(chosen, SPACE))
        if chosen.path is not None:
            await asyncio.to_thread(shutil.rmtree, chosen.path.expanduser().absolute() / SPACE.digest[:12])


@asynccontextmanager
async def blob_stores(settings: Settings) -> AsyncIterator[Open]:
    """Open stores in a folder beside the blobs, below a prefix in the bucket, or behind one before each key."""
    chosen = settings.blob_store
    if chosen.backend == "filesystem":
        async with _from_container(settings, BlobStore):  # makes the folder as the service does
            folder = Path(tempfile.mkdtemp(prefix=".conformance-", dir=settings.blobs_path))
        try:
            yield lambda place: _blob_store(settings, path=folder / place)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)
        return
    places: list[str] = []

    def opens(place: str) -> AbstractAsyncContextManager[BlobStore]:
        places.append(place)
        if chosen.backend == "s3":
            return _blob_store(settings, prefix=f"{chosen.prefix}/{place}")
        return _blob_store_apart(settings, place)

    yield opens
    for place in set(places):
        async with opens(place) as store:
            await _empty(store)


@asynccontextmanager
async def job_queues(settings: Settings) -> AsyncIterator[Open]:
    """Open queues by names of the kit's own."""
    chosen = settings.job_queue
    if chosen.backend not in BUILT_IN[Port.JOB_QUEUE]:
        yield partial(_named_job_queue, settings)
        return
    places: list[str] = []

    def opens(place: str) -> AbstractAsyncContextManager[JobQueue]:
        places.append(place)
        return _from_container(_with(settings, Port.JOB_QUEUE, name=place), JobQueue)

    yield opens
    if chosen.backend == "arq" and chosen.url is not None:
        await _forget(chosen.url, places)


@asynccontextmanager
async def face_embedders(settings: Settings) -> AsyncIterator[Open]:
    """Load the face model; it keeps nothing."""
    _require_photographs()
    yield lambda _: _from_container(settings, FaceEmbedder)


@asynccontextmanager
async def liveness_checkers(settings: Settings) -> AsyncIterator[Open]:
    """Load the liveness model; it keeps nothing."""
    _require_photographs()
    chosen = settings.liveness_checker
    yield lambda _: third_party(Port.LIVENESS_CHECKER, chosen.backend)(options=chosen.options)


OPENERS: Final = {
    Port.FACE_EMBEDDER: face_embedders,
    Port.LIVENESS_CHECKER: liveness_checkers,
    Port.VECTOR_INDEX: vector_indexes,
    Port.BLOB_STORE: blob_stores,
    Port.JOB_QUEUE: job_queues,
}


def main(port: Port, name: str, out: IO[bytes]) -> None:
    """Run the kit against one adapter."""
    from application.conformance.plugin import run  # noqa: PLC0415 - pytest is an extra

    wire = _Wire(out)
    try:
        settings = settings_for(port, name)
        run(port.value, lambda: OPENERS[port](settings), wire)
    except (StartError, SettingsError) as error:
        wire.send(Refused(str(error)))
    except FacepassError as error:
        wire.send(Refused(f"{name} cannot be opened: {error.message} ({error.code})"))
    except Exception as error:  # noqa: BLE001 - a factory of others may raise anything
        wire.send(Refused(f"{name} cannot be opened: {type(error).__name__}: {error}"))
    else:
        wire.send(Done())


@final
class _Wire:
    """The `Audience` that hands everything on."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def collected(self, promises: Sequence[str]) -> None:
        self.send(Collected(promises))

    def began(self, promise: str) -> None:
        self.send(Began(promise))

    def ended(self, promise: str, outcome: Outcome, reason: str, details: str) -> None:
        self.send(Promise(promise=promise, outcome=outcome, reason=reason, details=details))

    def send(self, event: Event | Refused | Done) -> None:
        self._out.write(msgspec.json.encode(event) + b"\n")
        self._out.flush()


@asynccontextmanager
async def _from_container(settings: Settings, port: type[Any]) -> AsyncIterator[Any]:
    async with opened(settings) as container:
        yield await container.get(port)


def _with(settings: Settings, port: Port, **changed: object) -> Settings:
    """Return the settings with some of a port's changed."""
    chosen = msgspec.structs.replace(getattr(settings, port.value), **changed)
    return msgspec.structs.replace(settings, **{port.value: chosen})


def _blob_store(settings: Settings, **changed: object) -> AbstractAsyncContextManager[BlobStore]:
    return _from_container(_with(settings, Port.BLOB_STORE, **changed), BlobStore)


@asynccontextmanager
async def _blob_store_apart(settings: Settings, place: str) -> AsyncIterator[BlobStore]:
    from application.conformance.apart import apart  # noqa: PLC0415 - pytest is an extra

    async with _from_container(settings, BlobStore) as store:
        yield apart(store, place)


async def _empty(store: BlobStore) -> None:
    """Remove what a cancelled write may have put there behind its test, when its thread came to the end."""
    for key in [key async for key in store.keys("")]:
        await store.remove(key)


@asynccontextmanager
async def _named_job_queue(settings: Settings, place: str) -> AsyncIterator[JobQueue]:
    """Open a third party's queue by the option `name`; refuse one that takes no notice of it and holds others' jobs."""
    chosen = settings.job_queue
    named = _with(settings, Port.JOB_QUEUE, options={**chosen.options, "name": place})
    async with _from_container(named, JobQueue) as queue:
        if waiting := await queue.waiting():
            raise PortRejected(
                Port.JOB_QUEUE.value,
                f"it holds {waiting} jobs under a name made up a moment ago, which the kit would do in place of their "
                "owner: the option `name` has to keep queues apart",
            )
        yield queue


async def _drop(opening: AbstractAsyncContextManager[VectorIndex]) -> None:
    """Take away what held the kit's space."""
    async with opening as index:
        droppable: object = index
        if isinstance(droppable, Droppable):
            await droppable.drop()


async def _forget(url: str, queues: Sequence[str]) -> None:
    """Delete what these queues left on a Redis: counts and signs of life, which it keeps for a while."""
    with extra_of(Port.JOB_QUEUE, "arq"):
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra
    async with Redis.from_url(url, decode_responses=True) as client:
        async for key in client.scan_iter(count=1000):
            if any(queue in key for queue in queues):
                await client.delete(key)


def _require_photographs() -> None:
    """Raise `StartError` where the packages are missing whose sample photographs the kit looks at."""
    from pytest import fail  # noqa: PLC0415, PT013 - the same

    from application.conformance.photographs import Photographs  # noqa: PLC0415 - pytest is an extra

    try:
        Photographs.of_samples()
    except fail.Exception as error:
        raise StartError(str(error)) from error


if __name__ == "__main__":
    # Whatever the adapter's libraries print goes nowhere; the events have standard output to themselves.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        main(Port(sys.argv[1]), sys.argv[2], out)
