"""The face being asked about."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from application.ports.face_embedder import FaceEmbedder
from domain.embedding import Embedding
from domain.errors import FaceNotFound, InvalidValue, TooManyItems
from domain.face import Analysis, Embed, Face

FRAMES_PER_PROBE = 10
"""As many frames of one probe as a call may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A face with its embedding, and the image it was found in."""

    face: Face
    embedding: Embedding
    image: Analysis


async def read_probe(embedder: FaceEmbedder, frames: Sequence[bytes]) -> Probe:
    """Return the largest face of the image; of several frames, that of the best quality.

    Raises `FaceNotFound` where no frame shows a face, and what `FaceEmbedder.analyse` raises.
    """
    if not frames:
        raise InvalidValue("an image is needed", field="image")
    if len(frames) > FRAMES_PER_PROBE:
        raise TooManyItems(f"a probe has at most {FRAMES_PER_PROBE} frames")
    if len(frames) == 1:
        seen = [await embedder.analyse(frames[0], embed=Embed.LARGEST)]
    else:
        seen = list(await asyncio.gather(*(embedder.analyse(frame, embed=Embed.LARGEST) for frame in frames)))
    probes = [
        Probe(face=analysis.largest, embedding=analysis.largest.embedding, image=analysis)
        for analysis in seen
        if analysis.largest is not None and analysis.largest.embedding is not None
    ]
    if not probes:
        raise FaceNotFound("no face was found in the image")
    return max(probes, key=lambda probe: probe.face.quality.score)
