import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final
from uuid import UUID

from application.ports.audit import AuditBatch, AuditFilter, AuditLog, AuditTrail
from application.ports.erasures import Traces
from application.ports.repositories import GalleryRepository, PersonRepository, ReferenceRepository
from application.ports.retentions import Retentions
from application.ports.transaction import Transaction
from application.use_cases.references.read_image import ReadImage
from domain.audit import AuditAction, AuditEntry, AuditEvent
from domain.enrolment import Reference
from domain.errors import ImageNotKept, PersonMerged, ReferenceNotFound
from domain.gallery import Gallery, GalleryId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId

_PAGE: Final = 100
_PEOPLE: Final = frozenset({"people", "person", "into", "from"})
"""Names under which people's ids stand in an entry's details."""
_REFERENCES: Final = frozenset({"references"})
"""Names under which references' ids stand there; a number of them under others' entries."""
ANOTHER: Final = "another person"
"""What an export says in place of an id that is not theirs."""
_ENDINGS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}

README: Final = """\
What is kept about a person
===========================

person.json      who they are to this service: the names and labels that were given for them, how long they are kept,
                 and every face that was enrolled of them: when, from which file, how good the picture was, and where
                 in it the face is. People who were merged into them are there too.
images/          the pictures as they were sent, where they are kept. The names are those of the faces in person.json.
audit.jsonl      what was done with them: one line an event, newest first. It names no one: ids, numbers, and the
                 network that a call came from. Where others were found beside them, it says "another person".

Not in here: for each face the service also keeps a template, a list of numbers that a program made of the picture to
compare faces by. It says nothing that the picture does not say, and can be made of it again. Templates are kept
sealed and are given to nobody, because whoever has many of them can attack the search index with them.
Copies in backups are sealed, and expire with them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedPiece:
    """A piece of a file of the export; pieces of one file come one after the other."""

    name: str
    content: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPerson:
    """Give everything that is kept about a person, for a request of theirs: a ZIP archive.

    Their fields, references and images as they were enrolled, the audit log's entries about them, and a
    file that says in plain words what is what. Templates are named there and not given: they can be made
    of the images, and are what a stolen index could be attacked with.
    """

    galleries: GalleryRepository
    people: PersonRepository
    references: ReferenceRepository
    retentions: Retentions
    traces: Traces
    read_image: ReadImage
    log: AuditLog
    batch: AuditBatch
    audit: AuditTrail
    transaction: Transaction

    async def __call__(
        self, *, workspace: WorkspaceId, gallery: GalleryId | str, person: PersonId
    ) -> AsyncIterator[ExportedPiece]:
        """Return the pieces, of which each is read when it is asked for; noted in the audit log before the first.

        Raises `GalleryNotFound`, `PersonNotFound`, `PersonMerged` and `PortUnavailable`.
        """
        await self.batch.flush(workspace)
        place = await self.galleries.get(workspace, gallery)
        found = await self.people.get(workspace, place.id, person, lock=False)
        if found.merged_into is not None:
            raise PersonMerged(f"the person was merged into {found.merged_into}: export that one")
        _, ids = await self.traces.of_person(workspace, found.id)
        merged = [await self.people.get(workspace, place.id, one, lock=False) for one in ids if one != found.id]
        erase_after = await self.retentions.erase_after(workspace, place.id, found.id)
        references = [one async for one in self._references(place, found.id)]
        self.audit.note(
            AuditEvent(
                workspace=workspace,
                action=AuditAction.PERSON_EXPORTED,
                subject=found.id,
                gallery=place.id,
                details={"references": len(references)},
            )
        )
        await self.transaction.commit()
        return self._pieces(place, found, merged, references, erase_after)

    async def _pieces(
        self,
        place: Gallery,
        person: Person,
        merged: Sequence[Person],
        references: Sequence[Reference],
        erase_after: datetime | None,
    ) -> AsyncIterator[ExportedPiece]:
        yield ExportedPiece(name="README.txt", content=README.encode())
        images: dict[UUID, str] = {}
        for reference in references:
            piece = await self._image(place, reference)
            if piece is not None:
                images[reference.id] = piece.name
                yield piece
        fields = {
            **_person(person),
            "gallery": {"id": str(place.id), "name": place.name},
            "erase_after": _time(erase_after),
            "merged": [_person(one) for one in merged],
            "references": [_reference(one, images.get(one.id)) for one in references],
        }
        yield ExportedPiece(name="person.json", content=json.dumps(fields, indent=2, ensure_ascii=False).encode())
        yield ExportedPiece(name="audit.jsonl", content=b"")
        people = frozenset({person.id, *(one.id for one in merged)})
        async for page in self._entries(place.workspace, people, about=people | {one.id for one in references}):
            yield ExportedPiece(name="audit.jsonl", content=page)

    async def _image(self, place: Gallery, reference: Reference) -> ExportedPiece | None:
        if reference.image_key is None:
            return None
        try:
            image = await self.read_image(workspace=place.workspace, gallery=place.id, reference=reference.id)
        except (ImageNotKept, ReferenceNotFound):
            return None  # removed meanwhile
        finally:
            # No connection is held while the client takes what it was sent.
            await self.transaction.rollback()
        return ExportedPiece(
            name=f"images/{reference.id}.{_ENDINGS.get(image.media_type, 'bin')}", content=image.content
        )

    async def _references(self, place: Gallery, person: PersonId) -> AsyncIterator[Reference]:
        after: UUID | None = None
        while True:
            page = await self.references.page(place.workspace, place.id, limit=_PAGE, after=after, person=person)
            for one in page.items:
                yield one
            after = page.next_after
            if after is None:
                return

    async def _entries(
        self, workspace: WorkspaceId, people: frozenset[UUID], *, about: frozenset[UUID]
    ) -> AsyncIterator[bytes]:
        before: int | None = None
        while entries := await self.log.page(workspace, limit=_PAGE, before=before, only=AuditFilter(about=about)):
            yield b"".join(
                json.dumps(_entry(one, people=people, own=about), ensure_ascii=False).encode() + b"\n"
                for one in entries
            )
            before = entries[-1].number


def _person(person: Person) -> Mapping[str, object]:
    return {
        "id": str(person.id),
        "external_id": person.external_id,
        "metadata": dict(person.metadata),
        "created_at": _time(person.created_at),
        "updated_at": _time(person.updated_at),
        "retention_days": person.retention_days,
        "consent_expires_at": _time(person.consent_expires_at),
    }


def _reference(reference: Reference, image: str | None) -> Mapping[str, object]:
    box = reference.box
    return {
        "id": str(reference.id),
        "created_at": _time(reference.created_at),
        "filename": reference.filename,
        "image": image,
        "quality": {
            "score": reference.quality.score,
            "reasons": [reason.value for reason in reference.quality.reasons],
        },
        "box": {"left": box.left, "top": box.top, "right": box.right, "bottom": box.bottom},
        "template_made_by": reference.space,
    }


def _entry(entry: AuditEntry, *, people: frozenset[UUID], own: frozenset[UUID]) -> Mapping[str, object]:
    """Render an entry, without the ids of others who stand in it: of a search that found several people, say.

    `own` are the ids of theirs: people and references. A reference that was deleted is none of these any more.
    """
    is_own = entry.subject in own or entry.action == AuditAction.REFERENCE_DELETED
    return {
        "at": _time(entry.at),
        "action": entry.action,
        "outcome": entry.outcome,
        "actor_kind": entry.actor_kind,
        "actor_id": None if entry.actor is None else str(entry.actor),
        "network": entry.network,
        "subject_id": str(entry.subject) if entry.subject is not None and is_own else None,
        "details": _own(entry.details, {str(one) for one in own}, references_too=entry.subject not in people),
    }


def _own(details: object, own: Collection[str], *, references_too: bool) -> object:
    """Put `ANOTHER` in place of ids that are not theirs; `details` may be anything, where somebody changed the log."""
    if not isinstance(details, Mapping):
        return details
    shown = {**details}
    for name in (_PEOPLE | _REFERENCES if references_too else _PEOPLE).intersection(shown):
        told = shown[name]
        if isinstance(told, list):
            shown[name] = [one if isinstance(one, str) and one in own else ANOTHER for one in told]
        elif not isinstance(told, int) and not (isinstance(told, str) and told in own):
            shown[name] = ANOTHER
    return shown


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
