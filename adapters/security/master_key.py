"""The one key that everything else is sealed under, where this process holds it itself: in a file or a setting."""

import base64
import binascii
import hmac
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Final, final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapters.security.envelope import opened, sealed
from adapters.security.secret import KEY_LENGTH, Secret
from application.ports.master_key import MasterKey

_FINGERPRINT_LENGTH: Final = 16
_LONGEST_FILE: Final = 4096
_FEWEST_BYTES: Final = 16
"""Different ones among 32. Of 32 random bytes 30 differ on average; fewer than 17 has a chance below 1e-13."""
_PRINTABLE: Final = frozenset(range(0x20, 0x7F))
_HEADER: Final = """\
# The master key of this Facepass installation. Back it up, and keep the copy apart from the data:
# without it nothing that was enrolled can ever be opened again, and whoever has both can open all of it.
"""


class MasterKeyError(Exception):
    """The master key cannot be had; the message is for the operator and says the way out."""


@final
class LocalMasterKey(MasterKey):
    """A secret in the memory of this process; what is wrapped is AES-256-GCM under a key derived from it."""

    def __init__(self, secret: Secret) -> None:
        self.secret: Final = secret
        self._wrapping = AESGCM(secret.derive("master"))

    @property
    def fingerprint(self) -> bytes:
        return hmac.digest(self.secret.derive("fingerprint"), b"master key", "sha256")[:_FINGERPRINT_LENGTH]

    async def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        return sealed(self._wrapping, secret, context)

    async def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        return opened(self._wrapping, wrapped, context)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedMasterKey:
    """A master key's secret, and whether this very call made it."""

    secret: Secret
    created: bool
    """True once in the life of an installation: then the operator must be told to back the file up."""


def not_random(secret: Secret) -> str | None:
    """Say why nobody drew this secret at random; None where it may well be so."""
    value = secret.value
    if len(set(value)) <= _FEWEST_BYTES:
        return "it has hardly any different bytes"
    if len({(after - before) % 256 for before, after in pairwise(value)}) <= 2:  # noqa: PLR2004 - steps of one size, and perhaps one leap
        return "its bytes count up or down"
    if all(byte in _PRINTABLE for byte in value):
        return "it is text, and no random bytes"
    return None


def from_text(text: str) -> Secret:
    """Return the secret that `KEY_LENGTH` bytes in base64 are. Raises `MasterKeyError`, which does not repeat them."""
    with suppress(binascii.Error, ValueError):
        return Secret(base64.b64decode(text.strip(), validate=True))
    raise MasterKeyError(f"it does not hold a master key: that is {KEY_LENGTH} random bytes in base64")


def load_or_create(path: Path, *, refusal: str | None = None) -> LoadedMasterKey:
    """Read the master key from `path`, or make it there: 0600, in a folder that is made 0700 where it is missing.

    Several processes that start at once end with the same key. It is durable before this returns.

    Args:
        path: the file: comment lines and one line of base64.
        refusal: why a missing one must not be made; None: it may.

    Raises:
        MasterKeyError: the file is missing and must not be made, others can read it, it does not hold a key, or
            the system refuses to read or write it.
    """
    with _explained(path):
        found = _read(path)
        if found is not None:
            return LoadedMasterKey(secret=found, created=False)
        if refusal is not None:
            raise MasterKeyError(f"there is no master key at {path}. {refusal}")
        made = Secret(token_bytes(KEY_LENGTH))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _publish(path, made):
            return LoadedMasterKey(secret=made, created=True)
        winner = _read(path)
        if winner is None:
            raise MasterKeyError(f"the master key at {path} was made and removed again by another process")
        return LoadedMasterKey(secret=winner, created=False)


def _read(path: Path) -> Secret | None:
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
        return Secret(_decoded(file.read(_LONGEST_FILE + 1), path))


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


def _publish(path: Path, secret: Secret) -> bool:
    """Give `path` to `secret`, whole and durable; False where another process was first."""
    incoming = path.with_name(f".{path.name}.{token_hex(8)}")
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_HEADER.encode() + base64.b64encode(secret.value) + b"\n")
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
