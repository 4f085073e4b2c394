"""Where the parts of a reference are kept: names that follow from its ids alone."""

from application.ports.blob_store import BlobKey, blob_key
from application.ports.cipher import Place
from domain.enrolment import ReferenceId
from domain.workspace import WorkspaceId

IMAGES = "images"


def image_key(workspace: WorkspaceId, reference: ReferenceId) -> BlobKey:
    """Return the key under which the blob store keeps a reference's image."""
    return blob_key(IMAGES, workspace, reference)


def image_place(workspace: WorkspaceId, reference: ReferenceId) -> Place:
    """Return the place that a reference's image is sealed to."""
    return Place(workspace=workspace, subject=reference, purpose="image")


def template_place(workspace: WorkspaceId, reference: ReferenceId) -> Place:
    """Return the place that a reference's template is sealed to."""
    return Place(workspace=workspace, subject=reference, purpose="template")
