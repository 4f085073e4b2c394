"""The port to a passive liveness check (presentation attack detection)."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from domain.face import Face
from domain.liveness.result import Liveness


class LivenessChecker(Protocol):
    """Judges whether a face in one image is there in person."""

    @abstractmethod
    async def check(self, image: bytes, *, face: Face) -> Liveness:
        """Judge `face`, found before in the same encoded image.

        The verdict is a value, never an exception. A missing or broken model raises `PortUnavailable`:
        it never reads as `live` or `spoof`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back threads and memory. May be called twice."""


class LivenessCheckerFactory(Protocol):
    """What an entry point of the group `facepass.liveness_checker` names."""

    @abstractmethod
    def __call__(self, *, options: Mapping[str, str]) -> AbstractAsyncContextManager[LivenessChecker]:
        """Load a model for a block; `options` are `FACEPASS_LIVENESS_CHECKER__OPTIONS__*` in lower case."""
