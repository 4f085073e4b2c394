"""The port to signatures that anybody can check."""

from abc import abstractmethod
from typing import Protocol


class ReceiptSigner(Protocol):
    """Ed25519 (RFC 8032) with the installation's own key: the same bytes always get the same signature."""

    @property
    @abstractmethod
    def public_key(self) -> bytes:
        """32 bytes."""

    @abstractmethod
    def sign(self, statement: bytes) -> bytes:
        """Return 64 bytes."""

    @abstractmethod
    def signed(self, statement: bytes, signature: bytes) -> bool:
        """Whether this installation signed these very bytes."""
