import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import final

from application.use_cases.erasure.replay_ledger import Replayed, ReplayLedger


@final
class LedgerGate:
    """Erases whom the ledger says was erased, once in a process and before anybody is served.

    The database may come from a backup. Where it waits for another schema at the start, whoever calls first
    afterwards waits for this.
    """

    def __init__(
        self, scope: Callable[[], AbstractAsyncContextManager[ReplayLedger]], told: Callable[[Replayed], None]
    ) -> None:
        """Take what replays, in a unit of work of its own, and who is told what came of it."""
        self._scope = scope
        self._told = told
        self._open = False
        self._one = asyncio.Lock()

    async def passed(self) -> None:
        """Return at once, but for the first. Raises what `ReplayLedger` raises: then the next one tries again."""
        if self._open:
            return
        async with self._one:
            if not self._open:
                async with self._scope() as replay:
                    self._told(await replay())
                self._open = True
