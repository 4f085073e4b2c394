import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import final

from application.ports.audit import AuditTrail
from application.ports.blob_store import BlobStore
from application.ports.cipher import Cipher, DataKeyId, WrappedKey
from application.ports.clock import Clock
from application.ports.errors import PortBusy
from application.ports.face_embedder import FaceEmbedder
from application.ports.id_generator import IdGenerator
from application.ports.record import Record
from application.ports.repositories import (
    NewReference,
    PersonRepository,
    ReconciliationRepository,
    ReferenceRepository,
)
from application.ports.transaction import Transaction
from application.use_cases.erasure.erased_names import ErasedNames
from application.use_cases.idempotency import Once, RememberedAnswers
from application.use_cases.references.places import image_key, image_place, template_place
from application.use_cases.references.reconcile import Reconcile
from application.use_cases.spaces import ServedSpaces
from domain.audit import AuditAction, AuditEvent
from domain.enrolment import IMAGES_PER_ENROLMENT, Reference, ReferenceId, Rejection, face_to_enrol
from domain.errors import (
    ExternalIdTaken,
    FaceNotFound,
    FaceRefused,
    ImageRefused,
    InvalidValue,
    NothingAccepted,
    PersonMerged,
    PersonNotFound,
    TooManyItems,
)
from domain.face import Embed, Face
from domain.gallery import Gallery, GalleryId
from domain.person import Person, PersonId, checked_external_id, checked_metadata
from domain.retention import NO_END, Retention
from domain.workspace import WorkspaceId

IMAGES_AT_ONCE = 4
"""Images of one call that are worked on together: enough for all cores, too few to crowd out other calls."""

SWEEP_AFTER = timedelta(seconds=5)
"""The call itself writes the index at once; the sweep takes over where it died before it could."""

FORGET_AFTER = timedelta(hours=1)
"""Images are noted before they are put: one whose reference was not committed by then is removed."""

_TRIES = 3
"""A gallery that moves to another model does so once, and perhaps back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentImage:
    """An image as it came: encoded bytes, with the name the client gave its file."""

    content: bytes
    filename: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What became of a call: a person, the references made, and the images that were refused."""

    person: Person
    accepted: tuple[Reference, ...]
    rejected: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class _Accepted:
    image: SentImage
    face: Face


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Whom the images are said to show, and what makes the call one that is done once."""

    person: PersonId | None
    external_id: str | None
    metadata: Mapping[str, str]
    retention: Retention
    once: Once[Enrolled] | None
    asked_at: datetime | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolReferences:
    """Enrol one or several images of one person, named by `person_id` or `external_id`.

    An `external_id` that nobody has makes the person, with the metadata and the retention of the call.
    Each image must show exactly one face, good enough for the gallery's policy; images are accepted or
    rejected one by one, and nothing is made where none is accepted. The next search finds what was
    accepted; `searchable: false` says that the index does not have it yet, and gets it as soon as it can.
    """

    spaces: ServedSpaces
    record: Record
    people: PersonRepository
    references: ReferenceRepository
    reconciliations: ReconciliationRepository
    remembered: RememberedAnswers
    reconcile: Reconcile
    erased: ErasedNames
    audit: AuditTrail
    transaction: Transaction
    blobs: BlobStore
    cipher: Cipher
    ids: IdGenerator
    clock: Clock

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        gallery: GalleryId | str,
        images: Sequence[SentImage],
        person: PersonId | None = None,
        external_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retention: Retention = NO_END,
        once: Once[Enrolled] | None = None,
        asked_at: datetime | None = None,
    ) -> Enrolled:
        """Raises `PersonNotFound` too where somebody of that `external_id` was erased since `asked_at`."""
        _check(images, person=person, external_id=external_id)
        checked_metadata(metadata or {})
        earlier = await self.remembered.earlier(workspace, once)
        if earlier is not None:
            return await self._as_it_is_now(earlier)
        for _ in range(_TRIES):
            place = await self.record.gallery(workspace, gallery)
            embedder = self.spaces.of(place.space).embedder
            # No connection is held while faces are looked at: a slow model must not empty the pool.
            await self.transaction.rollback()
            accepted, rejected = await self._look_at(embedder, images, place)
            if not accepted:
                raise NothingAccepted("none of the images could be enrolled", rejected=rejected)
            wanted = _Wanted(
                person=person,
                external_id=external_id,
                metadata=metadata or {},
                retention=retention,
                once=once,
                asked_at=asked_at,
            )
            found = await self._keep(place, accepted, rejected, wanted)
            if found is not None:
                return await self._as_it_is_now(found)
        raise PortBusy("face_embedder", "the gallery moved to another model again and again meanwhile")

    async def _keep(
        self,
        place: Gallery,
        accepted: Sequence[_Accepted],
        rejected: Sequence[Rejection],
        wanted: _Wanted,
    ) -> Enrolled | None:
        """Make the references; None, and nothing is made, where the gallery has moved to another space meanwhile."""
        workspace = place.workspace
        ids = [ReferenceId(self.ids.new()) for _ in accepted]
        if place.policy.keep_images:
            await self.reconciliations.note(workspace, ids, space=place.space, due=self.clock.now() + FORGET_AFTER)
            await self.transaction.commit()
        found, key = await self._person(place, wanted)
        # Before the images are put: until the commit nobody else can have the notes, however long that takes.
        await self.reconciliations.note(workspace, ids, space=place.space, due=self.clock.now() + SWEEP_AFTER)
        made = [
            await self._seal(place, found, key, reference, one) for reference, one in zip(ids, accepted, strict=True)
        ]
        stayed = await self.references.add(made)
        enrolled = Enrolled(person=found, accepted=tuple(one.reference for one in made), rejected=tuple(rejected))
        kept = stayed and await self.remembered.keep(workspace, wanted.once, enrolled, person=found.id)
        if kept:
            self._note(place, found, enrolled)
            await self.transaction.commit()
            return enrolled
        await self.transaction.rollback()
        await self.reconcile.after_commit(workspace=workspace, references=ids)
        if not stayed:
            return None
        earlier: Enrolled = await self.remembered.committed(workspace, wanted.once)
        return earlier

    def _note(self, gallery: Gallery, person: Person, enrolled: Enrolled) -> None:
        self.audit.note(
            AuditEvent(
                workspace=gallery.workspace,
                action=AuditAction.REFERENCE_ENROLLED,
                subject=person.id,
                gallery=gallery.id,
                details={
                    "references": [str(one.id) for one in enrolled.accepted],
                    "rejected": len(enrolled.rejected),
                },
            )
        )

    async def _as_it_is_now(self, enrolled: Enrolled) -> Enrolled:
        """Bring the index in line, and say whether it is: also where an earlier call died before it could."""
        ids = [reference.id for reference in enrolled.accepted]
        done = await self.reconcile.after_commit(workspace=enrolled.person.workspace, references=ids)
        accepted = tuple(
            replace(reference, searchable=reference.id not in done.unsearchable) for reference in enrolled.accepted
        )
        return replace(enrolled, accepted=accepted)

    async def _look_at(
        self, embedder: FaceEmbedder, images: Sequence[SentImage], gallery: Gallery
    ) -> tuple[list[_Accepted], list[Rejection]]:
        free = asyncio.Semaphore(IMAGES_AT_ONCE)

        async def look(image: SentImage) -> _Accepted | FaceRefused | ImageRefused:
            async with free:
                try:
                    analysis = await embedder.analyse(image.content, embed=Embed.ONLY)
                    return _Accepted(image, face_to_enrol(analysis, gallery.policy))
                except (FaceRefused, ImageRefused) as error:
                    return error

        if len(images) == 1:
            seen = await look(images[0])
            if not isinstance(seen, _Accepted):
                raise seen
            return [seen], []
        accepted, rejected = [], []
        for index, seen in enumerate(await asyncio.gather(*map(look, images))):
            if isinstance(seen, _Accepted):
                accepted.append(seen)
            else:
                rejected.append(
                    Rejection(index=index, filename=images[index].filename, code=seen.code, detail=seen.message)
                )
        return accepted, rejected

    async def _person(self, gallery: Gallery, wanted: _Wanted) -> tuple[Person, WrappedKey]:
        external_id = wanted.external_id
        if wanted.person is not None:
            return await self._known(gallery, wanted.person)
        if external_id is None:
            return await self._new(gallery, wanted)
        try:
            return await self._named(gallery, external_id, wanted)
        except ExternalIdTaken:
            # Another call made them in between: they are known now.
            await self.transaction.rollback()
            return await self._named(gallery, external_id, wanted)

    async def _named(self, gallery: Gallery, external_id: str, wanted: _Wanted) -> tuple[Person, WrappedKey]:
        known = None
        with suppress(PersonNotFound):
            known = await self._known(gallery, external_id)
        # Asked behind that look: whoever it missed, since they were erased, is remembered by now.
        if wanted.asked_at is not None and await self.erased.has_since(
            gallery.workspace, gallery.id, external_id, wanted.asked_at
        ):
            raise PersonNotFound("somebody of that external_id was erased after this was asked for: ask again")
        return known or await self._new(gallery, wanted)

    async def _known(self, gallery: Gallery, person: PersonId | str) -> tuple[Person, WrappedKey]:
        found = await self.people.get(gallery.workspace, gallery.id, person)
        if found.merged_into is not None:
            raise PersonMerged(f"the person was merged into {found.merged_into}: enrol that one")
        return found, await self.references.key_of(gallery.workspace, found.id)

    async def _new(self, gallery: Gallery, wanted: _Wanted) -> tuple[Person, WrappedKey]:
        now = self.clock.now()
        person = Person(
            id=PersonId(self.ids.new()),
            workspace=gallery.workspace,
            gallery=gallery.id,
            external_id=wanted.external_id,
            metadata=wanted.metadata,
            created_at=now,
            updated_at=now,
            version=1,
            retention_days=wanted.retention.days,
            consent_expires_at=wanted.retention.consent_expires_at,
        )
        key = self.cipher.new_key(DataKeyId(self.ids.new()), workspace=gallery.workspace)
        await self.people.add(person, key)
        self.audit.note(
            AuditEvent(
                workspace=gallery.workspace,
                action=AuditAction.PERSON_CREATED,
                subject=person.id,
                gallery=gallery.id,
            )
        )
        return person, key

    async def _seal(
        self, gallery: Gallery, person: Person, key: WrappedKey, reference: ReferenceId, one: _Accepted
    ) -> NewReference:
        workspace = gallery.workspace
        if one.face.embedding is None:
            raise FaceNotFound("no embedding could be made of the face")
        stored = None
        if gallery.policy.keep_images:
            stored = image_key(workspace, reference)
            sealed = await asyncio.to_thread(
                self.cipher.seal, one.image.content, key=key, place=image_place(workspace, reference)
            )
            # Before the commit: a reference never points at an image that is not there.
            await self.blobs.put(stored, sealed)
        return NewReference(
            reference=Reference(
                id=reference,
                workspace=workspace,
                gallery=gallery.id,
                person=person.id,
                space=gallery.space,
                quality=one.face.quality,
                box=one.face.box,
                filename=one.image.filename,
                image_key=stored,
                image_type=media_type(one.image.content) if stored else None,
                searchable=False,
                created_at=self.clock.now(),
            ),
            key=key,
            template=self.cipher.seal(
                one.face.embedding.to_bytes(), key=key, place=template_place(workspace, reference)
            ),
        )


def media_type(content: bytes) -> str:
    """Return the media type of an image that was decoded before, from its first bytes."""
    if content.startswith(b"\x89PNG"):
        return "image/png"
    return "image/webp" if content[8:12] == b"WEBP" else "image/jpeg"


def _check(images: Sequence[SentImage], *, person: PersonId | None, external_id: str | None) -> None:
    if not images:
        raise InvalidValue("an enrolment needs at least one image", field="image")
    if len(images) > IMAGES_PER_ENROLMENT:
        raise TooManyItems(f"one call holds at most {IMAGES_PER_ENROLMENT} images")
    if person is not None and external_id is not None:
        raise InvalidValue("name the person by person_id or by external_id, not by both", field="external_id")
    checked_external_id(external_id)
