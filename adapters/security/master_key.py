"""The one secret that everything else is derived from, and the file that it is kept in."""

import base64
import binascii
import hmac
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Final, final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_LENGTH: Final = 32
"""Bytes: 256 bits, the key length of AES-256 and the block that HKDF-SHA-256 gives."""

_FINGERPRINT_LENGTH: Final = 16
_LONGEST_FILE: Final = 4096
_HEADER: Final = """\
# The master key of this Facepass installation. Back it up, and keep the copy apart from the data:
# without it nothing that was enrolled can ever be opened again, and whoever has both can open all of it.
"""


class MasterKeyError(Exception):
    """The master key cannot be had; the message is for the operator and says the way out."""


@final
@dataclass(frozen=True, slots=True)
class MasterKey:
    """32 random bytes that are never used themselves, only what is derived from them."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raise `MasterKeyError` unless `secret` has `KEY_LENGTH` bytes."""
        if len(self.secret) != KEY_LENGTH:
            raise MasterKeyError(f"a master key has {KEY_LENGTH} bytes, this one has {len(self.secret)}")

    def derive(self, purpose: str) -> bytes:
        """Return the 32-byte key for `purpose`: HKDF-SHA-256 (RFC 5869), the purpose as `info`.

        No salt: the input is uniformly random already (RFC 5869, section 3.1).
        """
        return HKDF(SHA256(), KEY_LENGTH, salt=None, info=f"facepass/v1/{purpose}".encode()).derive(self.secret)

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that tell master keys apart and nothing about them, for a database to remember its key by."""
        return hmac.digest(self.derive("fingerprint"), b"master key", "sha256")[:_FINGERPRINT_LENGTH]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedMasterKey:
    """A master key, and whether this very call made it."""

    key: MasterKey
    created: bool
    """True once in the life of an installation: then the operator must be told to back the file up."""


def load_or_create(path: Path, *, may_create: bool) -> LoadedMasterKey:
    """Read the master key from `path`, or make it there: 0600, in a folder that is made 0700 where it is missing.

    Several processes that start at once end with the same key. It is durable before this returns.

    Args:
        path: the file: comment lines and one line of base64.
        may_create: False where there is data already, which no new key could open.

    Raises:
        MasterKeyError: the file is missing and must not be made, others can read it, it does not hold a key, or
            the system refuses to read or write it.
    """
    with _explained(path):
        found = _read(path)
        if found is not None:
            return LoadedMasterKey(key=found, created=False)
        if not may_create:
            raise MasterKeyError(
                f"there is data, but the master key that it was sealed with is not at {path}. "
                "Nothing can be opened without it: put the file back from its backup"
            )
        made = MasterKey(token_bytes(KEY_LENGTH))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _publish(path, made):
            return LoadedMasterKey(key=made, created=True)
        winner = _read(path)
        if winner is None:
            raise MasterKeyError(f"the master key at {path} was made and removed again by another process")
        return LoadedMasterKey(key=winner, created=False)


def _read(path: Path) -> MasterKey | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MasterKeyError(f"{path} is not a file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise MasterKeyError(
                f"others than its owner may open the master key at {path} "
                f"(mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 it"
            )
        return MasterKey(_decoded(file.read(_LONGEST_FILE + 1), path))


def _decoded(content: bytes, path: Path) -> bytes:
    lines = [line.strip() for line in content.splitlines()]
    said = [line for line in lines if line and not line.startswith(b"#")]
    with suppress(binascii.Error):
        if len(content) <= _LONGEST_FILE and len(said) == 1:
            secret = base64.b64decode(said[0], validate=True)
            if len(secret) == KEY_LENGTH:
                return secret
    raise MasterKeyError(
        f"{path} does not hold a master key: beside comment lines it has one line, "
        f"{KEY_LENGTH} bytes in base64. Put the file back from its backup"
    )


def _publish(path: Path, key: MasterKey) -> bool:
    """Give `path` to `key`, whole and durable; False where another process was first."""
    incoming = path.with_name(f".{path.name}.{token_hex(8)}")
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_HEADER.encode() + base64.b64encode(key.secret) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where the name is taken, so the first of several processes wins, and
        # nobody ever reads a file that is half written.
        os.link(incoming, path)
    except FileExistsError:
        return False
    finally:
        incoming.unlink()
        _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise MasterKeyError(f"the master key at {path} cannot be used: {reason}") from error
