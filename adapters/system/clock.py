from datetime import UTC, datetime
from typing import final

from application.ports.clock import Clock


@final
class SystemClock(Clock):
    """The operating system's wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)
