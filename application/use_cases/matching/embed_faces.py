from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditBatch
from application.ports.face_embedder import FaceEmbedder
from domain.audit import AuditAction, AuditEvent
from domain.face import Analysis, Embed
from domain.workspace import WorkspaceId


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedFaces:
    """Return the embedding of every face in an image, of length 1. Nothing is kept.

    Needs a scope of its own, so that an application that needs no embeddings cannot leak them: enough of them, of
    photographs that are enrolled, undo the rotation that a stolen vector index is protected by.
    """

    embedder: FaceEmbedder
    audit: AuditBatch

    async def __call__(self, *, workspace: WorkspaceId, image: bytes) -> Analysis:
        analysis = await self.embedder.analyse(image, embed=Embed.ALL)
        self.audit.note(
            AuditEvent(workspace=workspace, action=AuditAction.FACE_EMBEDDED, details={"faces": len(analysis.faces)})
        )
        return analysis
