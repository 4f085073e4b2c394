"""The port to regular work that a backend wants done."""

from abc import abstractmethod
from typing import Protocol, runtime_checkable


@runtime_checkable
class Upkeep(Protocol):
    """Registered by backends that keep themselves in order: build an index, sweep what was left over."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What is kept in order, for the log."""

    @abstractmethod
    async def tidy(self) -> None:
        """Do what is due and return; called every few seconds, never twice at once in one process.

        Idempotent, safe beside other processes that do the same, cheap where nothing is due.
        """
