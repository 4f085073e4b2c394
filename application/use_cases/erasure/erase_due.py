from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import final

from application.ports.clock import Clock
from application.ports.erasures import KeptPeople
from application.ports.retentions import Retentions
from application.use_cases.erasure.erase_person import ErasePerson
from domain.errors import NotFound, PersonMerged
from domain.person import PersonId

AT_ONCE = 100
"""People of one round: what is left of them comes round again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueUnit:
    """What one step of it needs, in a transaction of its own."""

    retentions: Retentions
    kept: KeptPeople
    erase: ErasePerson


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EraseDue:
    """Erase those whose consent has expired or whose retention has ended, as by a call; receipts are kept.

    Somebody who cannot be erased holds up nobody else, and a node whose clock is ahead erases nobody early.
    """

    scope: Callable[[], AbstractAsyncContextManager[DueUnit]]
    clock: Clock
    failed: Callable[[PersonId, Exception], None]
    """Told of each who could not be erased: they come round again."""
    _stuck: set[PersonId] = field(default_factory=set, init=False)

    async def __call__(self) -> int:
        """Return how many were erased. Raises `PortUnavailable` where the database is gone."""
        async with self.scope() as unit:
            due = await unit.retentions.due(self.clock.now(), limit=AT_ONCE + len(self._stuck))
        self._stuck.clear()
        erased = 0
        for workspace, gallery, person in due:
            async with self.scope() as unit:
                try:
                    await unit.kept.locked(workspace, gallery, person)
                    # Asked again, and in the transaction that erases: somebody may have given them a longer time.
                    if not await unit.retentions.is_due(workspace, gallery, person, self.clock.now()):
                        continue
                    await unit.erase(workspace=workspace, gallery=gallery, person=person)
                except (NotFound, PersonMerged):
                    continue  # deleted or merged in between
                except Exception as error:  # noqa: BLE001 - whatever it is, the others are due as well
                    self._stuck.add(person)
                    self.failed(person, error)
                    continue
                erased += 1
        return erased
