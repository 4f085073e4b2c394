from collections.abc import Mapping
from datetime import datetime
from typing import Any, final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.errors import REMOVED, violation
from adapters.persistence.pages import page, stretch
from adapters.persistence.tables import GALLERIES
from application.ports.repositories import GalleryRepository, Page
from domain.embedding import SpaceId
from domain.errors import GalleryNotFound, VersionMismatch
from domain.gallery import Gallery, GalleryId, Policy
from domain.quality import Reason
from domain.workspace import WorkspaceId

_NAME_TAKEN = "uq_galleries_workspace_id_name"


@final
class SqlGalleryRepository(GalleryRepository):
    """Galleries in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def add(self, gallery: Gallery) -> None:
        added = await self._connection.execute(
            insert(GALLERIES)
            .values(
                workspace_id=gallery.workspace, id=gallery.id, created_at=gallery.created_at, **_changeable(gallery)
            )
            # Nothing to do instead of an error, which would end the transaction: the caller may go on with it.
            .on_conflict_do_nothing(constraint=_NAME_TAKEN)
        )
        if not added.rowcount:
            raise violation(_NAME_TAKEN)

    async def get(self, workspace: WorkspaceId, gallery: GalleryId | str, *, lock: bool = False) -> Gallery:
        wanted = select(GALLERIES).where(is_gallery(workspace, gallery))
        # Not `FOR UPDATE`, which people who are made would stand in the way of.
        found = await self._connection.execute(wanted.with_for_update(key_share=True) if lock else wanted)
        row = found.one_or_none()
        if row is None:
            raise GalleryNotFound("no such gallery")
        return to_gallery(row)

    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: UUID | None, among: frozenset[GalleryId] | None = None
    ) -> Page[Gallery]:
        listed = select(GALLERIES).where(GALLERIES.c.workspace_id == workspace)
        if among is not None:
            listed = listed.where(GALLERIES.c.id.in_(among))
        found = await self._connection.execute(stretch(listed, GALLERIES.c.id, limit=limit, after=after))
        return page(found.all(), to_gallery, limit=limit)

    async def save(self, gallery: Gallery) -> None:
        this = is_gallery(gallery.workspace, gallery.id)
        saved = await self._connection.execute(
            update(GALLERIES).where(this, GALLERIES.c.version == gallery.version - 1).values(**_changeable(gallery))
        )
        if not saved.rowcount:
            if (await self._connection.execute(select(exists().where(this)))).scalar_one():
                raise VersionMismatch("the gallery was changed meanwhile")
            raise GalleryNotFound("no such gallery")

    async def remove(self, workspace: WorkspaceId, gallery: GalleryId) -> None:
        removed = await self._connection.execute(delete(GALLERIES).where(is_gallery(workspace, gallery)), facts=REMOVED)
        if not removed.rowcount:
            raise GalleryNotFound("no such gallery")


def is_gallery(workspace: WorkspaceId, gallery: GalleryId | str) -> ColumnElement[bool]:
    """Say that a row is this gallery, by id or by name."""
    by = GALLERIES.c.name if isinstance(gallery, str) else GALLERIES.c.id
    return (GALLERIES.c.workspace_id == workspace) & (by == gallery)


def to_gallery(row: Row[Any]) -> Gallery:
    """Read a row of `GALLERIES`."""
    return Gallery(
        id=GalleryId(row.id),
        workspace=WorkspaceId(row.workspace_id),
        name=row.name,
        space=SpaceId(row.space),
        policy=to_policy(row.policy),
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
    )


def to_policy(kept: Mapping[str, Any]) -> Policy:
    """Read a policy; a field that is newer than the row has its default."""
    consent = kept.get("consent_expires_at")
    return Policy(
        **{
            **kept,
            "refused_reasons": frozenset(map(Reason, kept["refused_reasons"])),
            "consent_expires_at": None if consent is None else datetime.fromisoformat(consent),
        }
    )


def _changeable(gallery: Gallery) -> dict[str, object]:
    policy = gallery.policy
    return {
        "name": gallery.name,
        "space": gallery.space,
        "policy": {
            "target_fmr": policy.target_fmr,
            "target_fpir": policy.target_fpir,
            "verification_threshold": policy.verification_threshold,
            "search_threshold": policy.search_threshold,
            "refused_reasons": sorted(policy.refused_reasons),
            "keep_images": policy.keep_images,
            "hide_uncertain": policy.hide_uncertain,
            "retention_days": policy.retention_days,
            # With its offset: PostgreSQL reads it too.
            "consent_expires_at": None if policy.consent_expires_at is None else policy.consent_expires_at.isoformat(),
        },
        "updated_at": gallery.updated_at,
        "version": gallery.version,
    }
