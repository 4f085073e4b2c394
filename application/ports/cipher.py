"""The port to encryption at rest."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NewType, Protocol
from uuid import UUID

from domain.workspace import WorkspaceId

DataKeyId = NewType("DataKeyId", UUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A data key under a key of the ring: useless without it, and destroying it destroys what it sealed."""

    id: DataKeyId
    workspace: WorkspaceId
    wrapped: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a ciphertext belongs: it is authenticated with it, and opens nowhere else."""

    workspace: WorkspaceId
    subject: UUID
    """The row's id: for templates and images that of the reference."""
    purpose: str
    """`template`, `image`, `filename`: one row's ciphertexts do not open as each other. Of an answer to an idempotency
    key, that key and the call's fingerprint as well."""


class Cipher(Protocol):
    """Envelope encryption: a data key per person, wrapped by a key of the ring, AES-256-GCM for both.

    Each method raises `PortUnavailable` where the ring is not to be had any more.
    """

    @abstractmethod
    def new_key(self, key: DataKeyId, *, workspace: WorkspaceId) -> WrappedKey:
        """Make a data key and wrap it, bound to its id and workspace."""

    @abstractmethod
    def rewrapped(self, key: WrappedKey) -> WrappedKey:
        """Wrap the same data key by the newest wrapping key. Raises `CannotOpen`."""

    @abstractmethod
    def seal(self, plaintext: bytes, *, key: WrappedKey, place: Place) -> bytes:
        """Encrypt; 29 bytes longer than `plaintext`, different each time. Raises `CannotOpen` for a foreign key."""

    @abstractmethod
    def open(self, sealed: bytes, *, key: WrappedKey, place: Place) -> bytes:
        """Decrypt. Raises `CannotOpen` for another key, another place, or a changed byte."""
