from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from application.ports.audit import AuditBatch
from domain.audit import AuditAction, AuditEvent
from domain.errors import FacepassError, PortError
from domain.workspace import WorkspaceId


@contextmanager
def refusals_noted(
    audit: AuditBatch, workspace: WorkspaceId, action: AuditAction, *, subject: object = None, gallery: object = None
) -> Iterator[None]:
    """Write down what was tried here and came to nothing, with the error's code as the outcome.

    Who was looked for and not found is told by trying too. A person and a gallery stand there where ids were sent:
    names may not. What a backend has to do with is nobody's doing, and left out.
    """
    try:
        yield
    except PortError:
        raise
    except FacepassError as error:
        audit.note(
            AuditEvent(
                workspace=workspace,
                action=action,
                subject=subject if isinstance(subject, UUID) else None,
                gallery=gallery if isinstance(gallery, UUID) else None,
                outcome=error.code,
            )
        )
        raise
