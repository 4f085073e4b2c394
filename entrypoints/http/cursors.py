"""Where a list goes on: opaque, signed, bound to its filters."""

import base64
import binascii
import hmac
from uuid import UUID

from application.ports.keyed_hash import KeyedHash
from domain.errors import InvalidCursor

_PURPOSE = "cursor"
_SIGNATURE = 16


class Cursors:
    """Writes and reads cursors; one of another list, or of other filters, is refused."""

    def __init__(self, keyed_hash: KeyedHash) -> None:
        """Take what signs them."""
        self._keyed_hash = keyed_hash

    def written(self, after: UUID | None, *filters: object) -> str | None:
        """Return the cursor of the page behind `after`, None for None."""
        if after is None:
            return None
        return base64.urlsafe_b64encode(after.bytes + self._signature(after, filters)).decode().rstrip("=")

    def read(self, cursor: str | None, *filters: object) -> UUID | None:
        """Return what the page stands behind, None for the first one. Raises `InvalidCursor`."""
        if cursor is None:
            return None
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError) as error:
            raise InvalidCursor("this is not a cursor of ours") from error
        if len(raw) != len(UUID(int=0).bytes) + _SIGNATURE:
            raise InvalidCursor("this is not a cursor of ours")
        after = UUID(bytes=raw[:-_SIGNATURE])
        if not hmac.compare_digest(raw[-_SIGNATURE:], self._signature(after, filters)):
            raise InvalidCursor("this cursor belongs to another list, or to other filters")
        return after

    def _signature(self, after: UUID, filters: tuple[object, ...]) -> bytes:
        bound = "\x00".join(repr(one) for one in (after.hex, *filters)).encode()
        return self._keyed_hash.digest(_PURPOSE, bound)[:_SIGNATURE]
