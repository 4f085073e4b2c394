from dataclasses import dataclass
from typing import final

from application.ports.face_embedder import FaceEmbedder
from domain.face import Analysis, Embed


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DetectFaces:
    """Find every face in an image: box, landmarks, pose, and quality with reasons. Nothing is kept."""

    embedder: FaceEmbedder

    async def __call__(self, *, image: bytes) -> Analysis:
        return await self.embedder.analyse(image, embed=Embed.NONE)
