from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import final

from application.ports.cipher import Cipher
from application.ports.index_states import IndexStates
from application.ports.record import Record, SealedTemplate
from application.use_cases.jobs.handlers import ReportProgress
from application.use_cases.matching.templates import opened_or_damaged
from application.use_cases.spaces import ServedSpaces
from domain.decision import Criterion, Outcome, search_criterion, verification_criterion
from domain.embedding import Embedding, SpaceId
from domain.enrolment import ReferenceId
from domain.gallery import Gallery
from domain.person import PersonId
from domain.similarity import similarities

SAMPLE = 200
"""Probes: a share of 1 in 100 that is decided differently is among them with a probability of 87 %."""

NAMED = 50
"""Differences that are told one by one."""

COMPARING = "comparing"

_PEOPLE = 3
_PER_PERSON = 10
_DIGITS = 6


class Question(StrEnum):
    """What is asked with a reference as the probe, which itself is left out of what it is compared with."""

    SEARCH = "search"
    """Who is this?"""
    GENUINE = "genuine"
    """Is this the person whose reference it is? Only where they have another one."""
    IMPOSTOR = "impostor"
    """Is this some other person?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    outcome: Outcome
    person: PersonId | None
    """Who was named, None for nobody."""
    similarity: float | None

    def shown(self) -> Mapping[str, object]:
        return {
            "outcome": self.outcome,
            "person_id": None if self.person is None else str(self.person),
            "similarity": None if self.similarity is None else round(self.similarity, _DIGITS),
        }


_Scored = Sequence[tuple[float, SealedTemplate]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSpaces:
    """Ask the same questions in two spaces, each with thresholds from its own calibration, and count the answers.

    Probes are references of the gallery, each left out of what it is compared with. Two models may well differ: how
    often each is right, as far as people were enrolled as who they are, says which of them is to be believed.
    """

    spaces: ServedSpaces
    states: IndexStates
    record: Record
    cipher: Cipher

    async def __call__(
        self,
        *,
        gallery: Gallery,
        source: SpaceId,
        target: SpaceId,
        sample: Sequence[ReferenceId],
        progress: ReportProgress,
    ) -> Mapping[str, object]:
        """Return the report, as JSON. References that are not in both spaces are left out."""
        before, after = (replace(gallery, space=space) for space in (source, target))
        old, new = await self._probes(before, sample), await self._probes(after, sample)
        probes = [reference for reference in sample if reference in old and reference in new]
        tally = _Tally()
        for place, reference in enumerate(probes):
            await progress(place, len(probes), COMPARING)
            person = old[reference][0].person
            stranger = next(
                (old[other][0].person for other in probes[place:] + probes[:place] if old[other][0].person != person),
                None,
            )
            asked_before = await self._answers(before, *old[reference], stranger)
            asked_after = await self._answers(after, *new[reference], stranger)
            alone = Question.GENUINE not in asked_before and Question.GENUINE not in asked_after
            for question in asked_before.keys() & asked_after.keys():
                tally.take(
                    question, reference, None if alone else person, asked_before[question], asked_after[question]
                )
        return tally.report(len(probes))

    async def _probes(
        self, gallery: Gallery, sample: Sequence[ReferenceId]
    ) -> Mapping[ReferenceId, tuple[SealedTemplate, Embedding]]:
        sealed = await self.record.templates(gallery.workspace, gallery.id, sample, space=gallery.space)
        return {
            one.reference: (one, embedding) for one, embedding in opened_or_damaged(self.cipher, sealed, gallery)[0]
        }

    async def _answers(
        self, gallery: Gallery, probe: SealedTemplate, embedding: Embedding, stranger: PersonId | None
    ) -> Mapping[Question, _Answer]:
        served = self.spaces.of(gallery.space)
        references = await self.record.references_in(gallery.workspace, gallery.id)
        searched = await self._scored(gallery, probe, embedding, None)
        criterion = search_criterion(served.calibration, policy=gallery.policy, references=references)
        answers = {Question.SEARCH: _answer(searched, criterion)}
        for question, claimed in ((Question.GENUINE, probe.person), (Question.IMPOSTOR, stranger)):
            scored = [] if claimed is None else await self._scored(gallery, probe, embedding, [claimed])
            if scored:
                answers[question] = _answer(
                    scored,
                    verification_criterion(served.calibration, policy=gallery.policy, references=len(scored)),
                )
        return answers

    async def _scored(
        self, gallery: Gallery, probe: SealedTemplate, embedding: Embedding, among: Sequence[PersonId] | None
    ) -> _Scored:
        """Return what the index proposes beside the probe itself, best first, as the record scores it."""
        index = self.spaces.of(gallery.space).index((await self.states.now()).serving)
        proposed = await index.search(
            embedding, gallery=gallery.id, people=_PEOPLE, per_person=_PER_PERSON, among=among
        )
        others = [one.reference for one in proposed if one.reference != probe.reference]
        sealed = await self.record.templates(gallery.workspace, gallery.id, others, space=gallery.space)
        found = opened_or_damaged(self.cipher, sealed, gallery)[0]
        scores = similarities(embedding, [one for _, one in found])
        pairs = [(float(score), one) for score, (one, _) in zip(scores, found, strict=True)]
        return sorted(pairs, key=lambda pair: (-pair[0], pair[1].reference.int))


class _Tally:
    """Counts answers, and keeps those that differ."""

    def __init__(self) -> None:
        self._compared: Counter[Question] = Counter()
        self._same: Counter[Question] = Counter()
        self._right_before: Counter[Question] = Counter()
        self._right_after: Counter[Question] = Counter()
        self._different: list[Mapping[str, object]] = []

    def take(
        self, question: Question, reference: ReferenceId, expected: PersonId | None, before: _Answer, after: _Answer
    ) -> None:
        """Count one question; `expected` is who can be found at all."""
        same = (before.outcome, before.person) == (after.outcome, after.person)
        self._compared[question] += 1
        self._same[question] += same
        self._right_before[question] += _right(question, expected, before)
        self._right_after[question] += _right(question, expected, after)
        if not same and len(self._different) < NAMED:
            self._different.append(
                {
                    "reference_id": str(reference),
                    "question": question,
                    "before": before.shown(),
                    "after": after.shown(),
                }
            )

    def report(self, probes: int) -> Mapping[str, object]:
        """Return it all, as JSON."""
        return {
            "probes": probes,
            **{
                question.value: {
                    "compared": self._compared[question],
                    "same": self._same[question],
                    "right_before": self._right_before[question],
                    "right_after": self._right_after[question],
                }
                for question in Question
            },
            "different": self._different,
        }


def _answer(scored: _Scored, criterion: Criterion) -> _Answer:
    if not scored:
        return _Answer(outcome=Outcome.NO_MATCH, person=None, similarity=None)
    similarity, best = scored[0]
    outcome = criterion.decide(similarity).outcome
    return _Answer(outcome=outcome, person=None if outcome is Outcome.NO_MATCH else best.person, similarity=similarity)


def _right(question: Question, expected: PersonId | None, answer: _Answer) -> bool:
    if question is Question.IMPOSTOR:
        return answer.outcome is not Outcome.MATCH
    if expected is None:
        return answer.outcome is not Outcome.MATCH
    return answer.outcome is Outcome.MATCH and answer.person == expected
