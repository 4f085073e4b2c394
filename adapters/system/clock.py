from datetime import UTC, datetime
from typing import final

from application.ports.clock import Clock


@final
class SystemClock(Clock):
    """The operating system's wall clock."""

    def now(self) -> datetime:  # noqa: D102 - the port says it
        return datetime.now(UTC)
