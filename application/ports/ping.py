"""The port through which a backend says that it is there."""

from abc import abstractmethod
from typing import Protocol, runtime_checkable


@runtime_checkable
class Ping(Protocol):
    """Registered by every backend; readiness walks them all."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The port's name, as answers and metrics show it (`vector_index`)."""

    @abstractmethod
    async def ping(self) -> None:
        """Return where the backend works, within two seconds. Raises `PortUnavailable` with the reason.

        A backend that is busy is there: `PortBusy` is never raised.
        """
