"""What the demo asks, and whether the answers are right."""

from collections.abc import Iterator, Sequence

import msgspec

from domain.decision import Outcome
from entrypoints.cli.demo.photographs import CHANGES, changed
from entrypoints.cli.demo.private_server import Answer, Service

NOBODY = "nobody"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its answer."""

    shows: str
    """Who is in the photograph."""
    change: str
    """What was done to it."""
    question: str
    answer: str
    similarity: float | None
    threshold: float | None
    outcome: str
    took_ms: float
    right: bool
    also: dict[str, float] = msgspec.field(default_factory=dict)
    """Others above the threshold, with their similarity."""


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """Who takes part: photographs by name."""

    enrolled: dict[str, bytes]
    stranger: tuple[str, bytes]
    """Left out on purpose."""
    refused: dict[str, bytes]
    """Turned away by the gallery's quality gate: strangers too."""
    photographs: int
    """From how many the enrolled were enrolled."""


def ask_all(service: Service, cast: Cast) -> Iterator[Asked]:
    """Search for everybody twice, each time in another copy; then for those who are not enrolled; then claims."""
    enrolled = cast.enrolled
    for number, (name, photograph) in enumerate(enrolled.items()):
        for change in (CHANGES[number % len(CHANGES)], CHANGES[(number + 3) % len(CHANGES)]):
            answer = service.search(changed(photograph, change))
            yield _searched(answer, shows=name, change=change.name, expected=name)
    for name, photograph in {**cast.refused, cast.stranger[0]: cast.stranger[1]}.items():
        for change in CHANGES[::2]:
            answer = service.search(changed(photograph, change))
            yield _searched(answer, shows=name, change=change.name, expected=None)
    names = list(enrolled)
    for number, shows in ((0, names[0]), (len(names) - 1, names[-1])):
        for claimed, change in ((shows, CHANGES[1]), (names[number - 1], CHANGES[3])):
            answer = service.verify(changed(enrolled[shows], change), claimed)
            yield _verified(answer, shows=shows, change=change.name, claimed=claimed)


def ask_group(answer: Answer, group: Sequence[str], cast: Cast) -> Asked:
    """Judge a search for every face of the group, named from left to right."""
    faces = sorted(answer["faces"], key=lambda face: face["box"]["left"])
    found = [name_of(face) for face in faces]
    return Asked(
        shows="all together",
        change="as it is",
        question="who are they?",
        answer=f"{len(found) - found.count(None)} of {len(found)} named",
        similarity=None,
        threshold=answer["threshold"],
        outcome="",
        took_ms=answer["took_ms"],
        right=found == [name if name in cast.enrolled else None for name in group],
    )


def name_of(face: Answer) -> str | None:
    """Return who a searched face is, None unless it is a match."""
    if face["decision"]["outcome"] != Outcome.MATCH:
        return None
    return str(face["matches"][0]["person"]["external_id"])


def _searched(answer: Answer, *, shows: str, change: str, expected: str | None) -> Asked:
    face = answer["faces"][0]
    outcome, matches = face["decision"]["outcome"], face["matches"]
    best = matches[0] if matches else None
    return Asked(
        shows=shows,
        change=change,
        question="who is it?",
        answer=NOBODY if best is None else best["person"]["external_id"],
        similarity=None if best is None else best["similarity"],
        threshold=answer["threshold"],
        outcome=outcome,
        took_ms=answer["took_ms"],
        right=outcome == Outcome.NO_MATCH if expected is None else name_of(face) == expected,
        also={one["person"]["external_id"]: one["similarity"] for one in matches[1:]},
    )


def _verified(answer: Answer, *, shows: str, change: str, claimed: str) -> Asked:
    outcome = answer["decision"]["outcome"]
    return Asked(
        shows=shows,
        change=change,
        question=f"is it {claimed}?",
        answer={Outcome.MATCH: "yes", Outcome.NO_MATCH: "no"}.get(outcome, "cannot tell"),
        similarity=answer["similarity"],
        threshold=answer["threshold"],
        outcome=outcome,
        took_ms=answer["took_ms"],
        right=outcome == (Outcome.MATCH if claimed == shows else Outcome.NO_MATCH),
    )
