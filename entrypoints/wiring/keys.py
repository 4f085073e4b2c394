"""From settings and a database to the opened ring of keys."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_bytes
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import engine
from adapters.persistence.installation import InstallationRow
from adapters.persistence.key_ring import SqlKeyRing
from adapters.persistence.schema import OpenSealing, Sealing
from adapters.security.cipher import AesGcmCipher
from adapters.security.keyed_hash import HmacKeyedHash
from adapters.security.master_key import (
    LoadedMasterKey,
    LocalMasterKey,
    MasterKeyError,
    from_text,
    load_or_create,
    not_random,
)
from adapters.security.opened_ring import OpenedRing, first_entries
from adapters.security.secret import KEY_LENGTH, Secret
from adapters.security.wrapping_keys import WrappingKeys
from application.ports.key_ring import RingEntry
from application.ports.master_key import MasterKey
from entrypoints.settings import PREFIX, Settings
from entrypoints.wiring.adapters import Port, third_party
from entrypoints.wiring.start_error import StartError

log = structlog.get_logger("facepass.protection")

_THERE_IS_DATA: Final = (
    "There is data that was sealed under one, and nothing of it can be opened without it: put the file back from its "
    "backup, or name the place where it is"
)
_IN_PRODUCTION: Final = (
    f"In production ({PREFIX}ENVIRONMENT) a start makes none: `facepass keys new-master FILE` does, once; keep a copy "
    f"of it apart from the data, and name it in {PREFIX}MASTER_KEY_FILE"
)


@asynccontextmanager
async def opened_master_key(settings: Settings, *, has_data: bool) -> AsyncIterator[MasterKey]:
    """Open the master key that the settings name; make one where there is no data yet, and no production.

    Raises `StartError` with the way out where it cannot be had, or is too weak for production.
    """
    match settings.master_key_kind:
        case "file":
            yield await asyncio.to_thread(_from_file, settings, has_data=has_data)
        case "environment":
            yield _from_environment(settings)
        case name:
            factory = third_party(Port.MASTER_KEY, name)
            async with factory(options=settings.master_key_options) as key:
                yield key


def with_next_master_key(settings: Settings, file: Path | None) -> Settings:
    """Return settings whose master key is the next one: in `file`, made there where it is missing, or as they say.

    Raises `StartError` where it is nowhere. It has to be a good one wherever the service runs.
    """
    given = (settings.next_master_key is not None, bool(settings.next_master_key_backend), file is not None)
    if sum(given) != 1:
        raise StartError(
            f"say where the new master key is, once: --to FILE, {PREFIX}NEXT_MASTER_KEY, or"
            f" {PREFIX}NEXT_MASTER_KEY_BACKEND"
        )
    if file is not None:
        _make(file.expanduser().absolute(), settings)
    return msgspec.structs.replace(
        settings,
        environment="production",
        master_key_file=file,
        master_key=settings.next_master_key,
        master_key_backend=settings.next_master_key_backend,
        master_key_options=settings.next_master_key_options,
    )


def make_master_key(path: Path, settings: Settings) -> bytes:
    """Make a master key at `path` and return its fingerprint. Raises `StartError` where there is one."""
    if not _make(path.expanduser().absolute(), settings).created:
        raise StartError(f"there is a master key at {path} already; it was left as it is")
    return LocalMasterKey(_make(path.expanduser().absolute(), settings).secret).fingerprint


def drawn_master_key() -> str:
    """Return a new master key as `FACEPASS_MASTER_KEY` takes it."""
    return base64.b64encode(token_bytes(KEY_LENGTH)).decode()


def _make(path: Path, settings: Settings) -> LoadedMasterKey:
    if path.is_relative_to(settings.data_path):
        raise StartError(f"{path} lies inside the data folder; a copy of the folder would hold the key to itself")
    try:
        return load_or_create(path)
    except MasterKeyError as error:
        raise StartError(str(error)) from error


async def opened_ring(master: MasterKey, *, reads: AsyncEngine, transactions: AsyncEngine) -> OpenedRing:
    """Read and open the ring; make one where there is none.

    Raises `PortRejected` where the data was sealed under another master key.
    """
    ring = OpenedRing(master, lambda: _entries(reads))
    if not await _entries(reads):
        await _begin(master, transactions)
    await ring.read()
    return ring


async def was_started(pool: AsyncEngine) -> bool:
    """Whether this database was started with a master key before."""
    connection = SqlConnection(pool)
    try:
        return await InstallationRow(connection).master_key() is not None
    finally:
        await connection.aclose()


def sealing_at(url: str, settings: Settings) -> OpenSealing:
    """Say how a migration gets at the keys."""

    async def sealing() -> Sealing:
        pool = engine(url, connections=2, timeout=settings.database.timeout)
        try:
            async with opened_master_key(settings, has_data=await was_started(pool)) as master:
                ring = await opened_ring(master, reads=pool, transactions=pool)
        finally:
            await pool.dispose()
        # Nobody follows the ring from here on, and a migration may take longer than a process trusts what it read.
        keys = WrappingKeys(ring.wrapping.secrets, sealing=ring.wrapping.sealing[0])
        return Sealing(
            cipher=AesGcmCipher(keys),
            keyed_hash=HmacKeyedHash(ring.hashing),
            from_master_key=isinstance(master, LocalMasterKey) and ring.follows_from(master.secret),
        )

    return sealing


async def _entries(pool: AsyncEngine) -> Sequence[RingEntry]:
    connection = SqlConnection(pool)
    try:
        return await SqlKeyRing(connection).entries()
    finally:
        await connection.aclose()


async def _begin(master: MasterKey, pool: AsyncEngine) -> None:
    """Make the ring, unless another process is faster."""
    connection = SqlConnection(pool)
    try:
        installation = InstallationRow(connection)
        known = await installation.master_key()
        if known not in {None, master.fingerprint}:
            return
        legacy = master.secret if known is not None and isinstance(master, LocalMasterKey) else None
        await SqlKeyRing(connection).change((), await first_entries(master, legacy=legacy))
        await installation.remember(master.fingerprint)
        await connection.commit()
    finally:
        await connection.aclose()


def _from_file(settings: Settings, *, has_data: bool) -> LocalMasterKey:
    path = settings.master_key_path
    refusal = _THERE_IS_DATA if has_data else _IN_PRODUCTION if settings.environment == "production" else None
    try:
        loaded = load_or_create(path, refusal=refusal)
    except MasterKeyError as error:
        raise StartError(f"{PREFIX}MASTER_KEY_FILE: {error}") from error
    if loaded.created:
        log.warning("master_key_made", path=str(path), advice="back it up, apart from the data")
    _require_strong(settings, loaded.secret, "MASTER_KEY_FILE")
    return LocalMasterKey(loaded.secret)


def _from_environment(settings: Settings) -> LocalMasterKey:
    try:
        secret = from_text(settings.master_key or "")
    except MasterKeyError as error:
        raise StartError(f"{PREFIX}MASTER_KEY: {error}. {_HOW_TO_MAKE}") from error
    _require_strong(settings, secret, "MASTER_KEY")
    return LocalMasterKey(secret)


_HOW_TO_MAKE: Final = "`facepass keys new-master -` prints a new one"


def _require_strong(settings: Settings, secret: Secret, setting: str) -> None:
    weak = not_random(secret)
    if weak is not None and settings.environment == "production":
        raise StartError(
            f"{PREFIX}{setting}: the master key can be guessed: {weak}. {_HOW_TO_MAKE}; where there is data already, "
            "change over to it with `facepass keys rotate-master`, outside of production"
        )
