from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from application.ports.cipher import Cipher
from application.ports.index_states import IndexName
from application.ports.record import Record
from application.use_cases.matching.ranking import Ranking
from application.use_cases.matching.search_faces import DEFAULT_LIMIT
from application.use_cases.matching.templates import opened_or_damaged
from application.use_cases.spaces import ServedSpaces
from domain.decision import Outcome, search_criterion
from domain.embedding import Embedding
from domain.enrolment import ReferenceId
from domain.gallery import Gallery
from domain.person import PersonId

_ASKED = 3
"""Times that two indexes may differ about one probe before they do: people come and go between two searches."""

ALLOWED = 0.01
"""Share of probes that the two may differ about: ten times what pgvector's graph missed of 100,000 people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What two indexes led to for the same probes."""

    probes: int
    differing: tuple[ReferenceId, ...] = ()
    """References that, as probes, led to other people or other decisions."""

    @property
    def agrees(self) -> bool:
        """Whether no more differ than approximate search explains."""
        return len(self.differing) <= ALLOWED * self.probes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompareDecisions:
    """Search for enrolled faces through two indexes, and name those for whom they lead to other decisions.

    As a search does it: the index proposes, the record scores, the gallery's policy decides. A probe is a
    reference's own template.
    """

    record: Record
    cipher: Cipher
    spaces: ServedSpaces

    async def __call__(
        self, *, probes: Sequence[tuple[Gallery, ReferenceId]], one: IndexName, other: IndexName
    ) -> Agreement:
        """Compare; a probe that is gone from the record, or damaged, is passed over."""
        compared = 0
        differing: list[ReferenceId] = []
        for gallery, reference in probes:
            sealed = await self.record.templates(gallery.workspace, gallery.id, [reference], space=gallery.space)
            for _, probe in opened_or_damaged(self.cipher, sealed, gallery)[0]:
                compared += 1
                if not await self._alike(probe, gallery, one, other):
                    differing.append(reference)
        return Agreement(probes=compared, differing=tuple(differing))

    async def _alike(self, probe: Embedding, gallery: Gallery, one: IndexName, other: IndexName) -> bool:
        for _ in range(_ASKED):
            if await self._decided(probe, gallery, one) == await self._decided(probe, gallery, other):
                return True
        return False

    async def _decided(self, probe: Embedding, gallery: Gallery, index: IndexName) -> list[tuple[PersonId, Outcome]]:
        served = self.spaces.of(gallery.space)
        criterion = search_criterion(
            served.calibration,
            policy=gallery.policy,
            references=await self.record.references_in(gallery.workspace, gallery.id),
        )
        ranked = await Ranking(record=self.record, cipher=self.cipher)(
            probe, gallery=gallery, index=served.index(index), people=DEFAULT_LIMIT
        )
        decided = [(best.person, criterion.decide(similarity).outcome) for similarity, best in ranked.best]
        return [(person, outcome) for person, outcome in decided if outcome is not Outcome.NO_MATCH]
