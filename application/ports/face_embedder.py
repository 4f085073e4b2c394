"""The port to a face model."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from domain.embedding import EmbeddingSpace
from domain.face import Analysis, Embed


class FaceEmbedder(Protocol):
    """Finds faces in an image and turns them into embeddings of one space.

    There is no working without one: where its model cannot be loaded, or an execution provider that was asked for
    is not there, the service does not start. Later failures of one image are that image's error.
    """

    @property
    @abstractmethod
    def space(self) -> EmbeddingSpace:
        """The space of every embedding that this embedder makes; constant for its life."""

    @abstractmethod
    async def analyse(self, image: bytes, *, embed: Embed) -> Analysis:
        """Find every face in an encoded image (JPEG, PNG or WebP) and embed those that `embed` says.

        EXIF orientation is applied first; boxes are clipped to the image; faces come largest visible
        area first. No face is an empty tuple, not an error. The same bytes give the same faces and
        the same vectors to 1e-5, whatever else is worked on at the same time and in the same batch.

        The header is checked before anything is decoded. Raises `NotAnImage`, `ImageTruncated`,
        `ImageFormatUnsupported`, `ImageTooLarge`, `TooManyPixels`; `PortBusy` where the executor's
        queue or the decode budget is full, at once or after its wait limit; never blocks the event loop.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let running work end and give back threads and memory. May be called twice."""


class FaceEmbedderFactory(Protocol):
    """What an entry point of the group `facepass.face_embedder` names."""

    @abstractmethod
    def __call__(self, *, options: Mapping[str, str]) -> AbstractAsyncContextManager[FaceEmbedder]:
        """Load a model for a block; `options` are the settings `FACEPASS_FACE_EMBEDDER__OPTIONS__*` in lower case."""
