import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.audit import AuditBatch
from application.ports.cipher import Cipher
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.face_embedder import FaceEmbedder
from application.ports.index_states import IndexStates
from application.ports.record import Record, SealedTemplate
from application.ports.vector_index import VectorIndex
from application.use_cases.matching.probe import Probe, read_probe
from application.use_cases.matching.ranking import Ranking
from application.use_cases.matching.refused import refusals_noted
from application.use_cases.spaces import ServedSpace, ServedSpaces
from domain.audit import AuditAction, AuditEvent
from domain.decision import Criterion, Decision, Outcome, margins, search_criterion
from domain.enrolment import ReferenceId
from domain.errors import FaceNotFound, FacepassError, InvalidValue, TooManyItems
from domain.face import Analysis, Embed, Face
from domain.gallery import Gallery, GalleryId, checked_rate, checked_threshold
from domain.person import PersonId
from domain.workspace import WorkspaceId

DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100
LARGEST_AMONG = 1000
"""As many people as a search may be limited to."""

LONGEST = 60.0
"""Seconds that a search may go on in a space which its gallery has left: its templates are kept for longer."""

_TRIES = 3
"""Which index answers changes a few times in a move, seconds apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A person who looks enough like the probe to be named."""

    decision: Decision
    similarity: float
    """Cosine to the person's best reference, in [-1, 1]."""
    margin: float | None
    """Distance to the next person's similarity, named or not; None where there is no other person."""
    best: SealedTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedFace:
    """One face of the image, and who it may be: best first, nobody where it is a stranger."""

    face: Face
    decision: Decision
    candidates: tuple[Candidate, ...]
    damaged: frozenset[ReferenceId]
    """Left out, since the record's template does not open; for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found, and what that rests on."""

    image: Analysis
    faces: tuple[SearchedFace, ...]
    criterion: Criterion
    references: int
    """How many were searched: the threshold follows from it."""
    model: str
    query_ms: float
    """Milliseconds for index, record and scoring, without inference."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFaces:
    """Find out who in a gallery a face is (1:N): the largest face of an image, or every one.

    The threshold follows from the target rate for the whole search and the number of references, so
    that a gallery that grows does not begin to hand out strangers. It holds for each face: a photograph
    of twenty strangers has twenty chances. A stranger is an empty list. People above the verification
    threshold and below the search threshold are `uncertain`. The index only proposes: every similarity
    is computed from the record. A reference whose template does not open is left out.
    """

    spaces: ServedSpaces
    states: IndexStates
    record: Record
    cipher: Cipher
    audit: AuditBatch

    async def __call__(
        self,
        *,
        workspace: WorkspaceId,
        frames: Sequence[bytes],
        gallery: GalleryId | str,
        every_face: bool = False,
        limit: int = DEFAULT_LIMIT,
        threshold: float | None = None,
        target_fpir: float | None = None,
        among: Sequence[PersonId] | None = None,
    ) -> SearchResult:
        """Search; `limit` counts people. Raises `FaceNotFound` only where the largest face is wanted."""
        checked_threshold(threshold, "threshold")
        if target_fpir is not None:
            checked_rate(target_fpir, "target_fpir")
        if not 1 <= limit <= LARGEST_LIMIT:
            raise InvalidValue(f"limit is 1 to {LARGEST_LIMIT}", field="limit")
        if among is not None and len(among) > LARGEST_AMONG:
            raise TooManyItems(f"a search can be limited to at most {LARGEST_AMONG} people")
        with refusals_noted(self.audit, workspace, AuditAction.FACE_SEARCHED, gallery=gallery):
            begun = time.monotonic()
            place = await self.record.gallery(workspace, gallery)
            served = self.spaces.of(place.space)
            image, faces = await self._faces(served.embedder, frames, every_face=every_face)
            began = time.perf_counter()
            references = await self.record.references_in(workspace, place.id)
            criterion = search_criterion(
                served.calibration,
                policy=place.policy,
                references=references,
                threshold=threshold,
                target_fpir=target_fpir,
            )
            searched = await self._searched(faces, place, served, criterion, limit=limit, among=among)
        if time.monotonic() - begun > LONGEST and (await self.record.gallery(workspace, place.id)).space != place.space:
            raise PortBusy("face_embedder", "the gallery moved to another model meanwhile")
        self._note(place, searched)
        return SearchResult(
            image=image,
            faces=searched,
            criterion=criterion,
            references=references,
            model=served.model,
            query_ms=(time.perf_counter() - began) * 1000,
        )

    def _note(self, gallery: Gallery, searched: Sequence[SearchedFace]) -> None:
        """Write down that it was searched for, and who the faces were found to be, if anybody."""
        matched = [
            face.candidates[0].best.person
            for face in searched
            if face.decision.outcome is Outcome.MATCH and face.candidates
        ]
        outcomes = Counter(face.decision.outcome for face in searched)
        self.audit.note(
            AuditEvent(
                workspace=gallery.workspace,
                action=AuditAction.FACE_SEARCHED,
                subject=matched[0] if len(matched) == 1 else None,
                gallery=gallery.id,
                details={
                    "faces": len(searched),
                    **{outcome.value: number for outcome, number in outcomes.items()},
                    **({"people": [str(person) for person in matched]} if len(matched) > 1 else {}),
                },
            )
        )

    async def _faces(
        self, embedder: FaceEmbedder, frames: Sequence[bytes], *, every_face: bool
    ) -> tuple[Analysis, tuple[Face, ...]]:
        if not every_face:
            probe: Probe = await read_probe(embedder, frames)
            return probe.image, (probe.face,)
        if len(frames) != 1:
            raise InvalidValue("a search for every face takes one image", field="image")
        image = await embedder.analyse(frames[0], embed=Embed.ALL)
        return image, image.faces

    async def _searched(
        self,
        faces: Sequence[Face],
        gallery: Gallery,
        served: ServedSpace,
        criterion: Criterion,
        *,
        limit: int,
        among: Sequence[PersonId] | None,
    ) -> tuple[SearchedFace, ...]:
        """Search in the index that answers: all over again where that changed meanwhile, since it may be empty by then.

        Why it was not where the state is the same afterwards is in `docs/decisions/0020-moving-to-another-index.md`.
        """
        for _ in range(_TRIES):
            state = await self.states.now()
            index = served.index(state.serving)
            try:
                found = [
                    await self._search(face, gallery, index, criterion, limit=limit, among=among) for face in faces
                ]
            except FacepassError:
                if await self.states.now() == state:
                    raise
            else:
                if await self.states.now() == state:
                    return tuple(found)
        raise PortBusy("vector_index", "which index answers changed again and again meanwhile")

    async def _search(
        self,
        face: Face,
        gallery: Gallery,
        index: VectorIndex,
        criterion: Criterion,
        *,
        limit: int,
        among: Sequence[PersonId] | None,
    ) -> SearchedFace:
        if face.embedding is None:
            raise FaceNotFound("no embedding could be made of the face")
        ranking = Ranking(record=self.record, cipher=self.cipher)
        ranked = await ranking(face.embedding, gallery=gallery, index=index, people=limit + 1, among=among)
        if not ranked.proposed and among is None:
            await self._require_nobody(gallery)
        gaps = margins([similarity for similarity, _ in ranked.best])
        candidates = tuple(
            Candidate(decision=criterion.decide(similarity), similarity=similarity, margin=margin, best=best)
            for (similarity, best), margin in zip(ranked.best, gaps, strict=True)
            if criterion.decide(similarity).outcome is not Outcome.NO_MATCH
        )[:limit]
        decision = candidates[0].decision if candidates else Decision(Outcome.NO_MATCH)
        if gallery.policy.hide_uncertain:
            candidates = tuple(one for one in candidates if one.decision.outcome is Outcome.MATCH)
        return SearchedFace(face=face, decision=decision, candidates=candidates, damaged=ranked.damaged)

    async def _require_nobody(self, gallery: Gallery) -> None:
        """Raise `PortUnavailable` where an index that holds nobody is taken for a gallery in which nobody is.

        An index always proposes somebody, however far off. One that does not was lost, or is another than the one
        that was filled: another folder, server or precision.
        """
        enrolled = await self.record.all_templates(
            gallery.workspace, gallery.id, after=None, limit=1, space=gallery.space
        )
        if enrolled:
            raise PortUnavailable(
                "vector_index",
                "it holds nobody of this gallery, though people are enrolled in it: `facepass index verify` says who is"
                " missing, `facepass index rebuild` writes them",
            )
