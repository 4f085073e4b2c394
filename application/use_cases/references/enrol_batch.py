from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import final

from application.use_cases.batch import each
from application.use_cases.idempotency import Once
from application.use_cases.references.enrol_references import Enrolled, EnrolReferences, SentImage
from domain.errors import FacepassError
from domain.gallery import GalleryId
from domain.person import PersonId
from domain.retention import NO_END, Retention
from domain.workspace import WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentItem:
    """One person of a batch, with their images."""

    images: tuple[SentImage, ...]
    person: PersonId | None = None
    external_id: str | None = None
    metadata: Mapping[str, str] | None = None
    retention: Retention = NO_END
    once: Once[Enrolled] | None = None


EnrolmentScope = Callable[[], AbstractAsyncContextManager[EnrolReferences]]
"""Opens a unit of work of its own, with its own transaction: items of a batch do not share one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolBatch:
    """Enrol up to 100 people, each with one or several images; each item has its result or its problem.

    One item's failure is no other's, and nothing of it is kept. With an idempotency key each item is made once.
    """

    enrolment: EnrolmentScope

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, items: Sequence[EnrolmentItem]
    ) -> list[Enrolled | FacepassError]:
        async def enrol(item: EnrolmentItem) -> Enrolled:
            async with self.enrolment() as references:
                return await references(
                    workspace=workspace,
                    gallery=gallery,
                    images=item.images,
                    person=item.person,
                    external_id=item.external_id,
                    metadata=item.metadata,
                    retention=item.retention,
                    once=item.once,
                )

        return await each(items, enrol)
