from dataclasses import dataclass
from typing import final

from application.ports.clock import Clock
from application.ports.repositories import AnswerRepository, ReconciliationRepository
from application.ports.transaction import Transaction
from application.use_cases.references.reconcile import Reconcile

_AT_ONCE = 200


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Do what was noted and not done: index entries to write or forget, images to remove, answers that expired.

    Finds what a crash left behind, what a dead backend could not take, and nothing else.
    """

    reconciliations: ReconciliationRepository
    answers: AnswerRepository
    reconcile: Reconcile
    transaction: Transaction
    clock: Clock

    async def __call__(self) -> int:
        """Return how many references were looked at."""
        due = await self.reconciliations.due(self.clock.now(), limit=_AT_ONCE)
        await self.answers.purge(self.clock.now())
        await self.transaction.commit()
        for workspace, reference in due:
            await self.reconcile(workspace=workspace, references=[reference])
        return len(due)
