from typing import final
from uuid import UUID

from uuid_utils import compat

from application.ports.id_generator import IdGenerator


@final
class UuidV7Generator(IdGenerator):
    """UUIDv7 whose order within a millisecond is kept by a counter that all threads of the process share.

    The counter is the `uuid` crate's (RFC 9562, section 6.2, method 1): ids ascend strictly, also across threads.
    """

    def new(self) -> UUID:
        return compat.uuid7()
