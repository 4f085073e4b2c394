from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.cipher import Cipher
from application.ports.record import Record, SealedTemplate
from application.ports.vector_index import Neighbour, VectorIndex
from application.use_cases.matching.templates import opened_or_damaged
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from domain.gallery import Gallery
from domain.person import PersonId
from domain.similarity import similarities

PROPOSED_PER_PERSON = 3
"""References of one person that the index may propose: its numbers are approximate, so that the best by
its count may be the second best by ours."""

MOST_ASKED_FOR = 10_000
"""People that the index is asked for at most, where those it proposes are gone from the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """The nearest people of a gallery."""

    best: Sequence[tuple[float, SealedTemplate]]
    """Cosine in [-1, 1] and best reference of each person, best first, as the record scores them."""
    damaged: frozenset[ReferenceId]
    """Proposed, and left out: the record's template does not open."""
    proposed: int = 0
    """References that the index came up with: none only where it holds nobody of those who were asked for."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Let an index propose, and the record decide."""

    record: Record
    cipher: Cipher

    async def __call__(
        self,
        probe: Embedding,
        *,
        gallery: Gallery,
        index: VectorIndex,
        people: int,
        among: Sequence[PersonId] | None = None,
    ) -> Ranked:
        """Return up to `people` people.

        Whoever was deleted or merged and is still in the index must not crowd out the living: for each one lost
        more are asked for.
        """
        asked, each, before = people, PROPOSED_PER_PERSON, 0
        while True:
            proposed = await index.search(probe, gallery=gallery.id, people=asked, per_person=each, among=among)
            ranked = await self._scored(probe, gallery, proposed)
            none_lost = len(ranked.best) >= len({one.person for one in proposed})
            no_more = len(proposed) == before or asked >= MOST_ASKED_FOR
            if len(ranked.best) >= people or none_lost or no_more:
                return Ranked(best=ranked.best[:people], damaged=ranked.damaged, proposed=len(proposed))
            asked, each, before = 2 * asked, 2 * each, len(proposed)

    async def _scored(self, probe: Embedding, gallery: Gallery, proposed: Sequence[Neighbour]) -> Ranked:
        """Return the best proposed reference of each person whom the record has."""
        if not proposed:
            return Ranked(best=(), damaged=frozenset())
        sealed = await self.record.templates(
            gallery.workspace, gallery.id, [one.reference for one in proposed], space=gallery.space, consented=True
        )
        found, damaged = opened_or_damaged(self.cipher, sealed, gallery)
        scores = similarities(probe, [embedding for _, embedding in found])
        scored = [(float(score), one) for score, (one, _) in zip(scores, found, strict=True)]
        best: dict[PersonId, tuple[float, SealedTemplate]] = {}
        for score, one in sorted(scored, key=lambda pair: (-pair[0], pair[1].reference.int)):
            best.setdefault(one.person, (score, one))
        return Ranked(best=list(best.values()), damaged=frozenset(damaged))
