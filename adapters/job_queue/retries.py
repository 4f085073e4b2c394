from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Final, final

import structlog

from application.ports.job_queue import QueuedJob

_SYSTEM_RANDOM: Final = SystemRandom()
_log = structlog.get_logger(__name__)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a job that keeps failing runs, and how long it waits in between.

    A job that failed waits a random time between 0 and `backoff * 2^failures` seconds, at most `longest_backoff`
    (*full jitter*: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015, where it needs the fewest
    calls of the schemes compared).
    """

    tries: int = 3
    """Runs in all, the first one included."""
    backoff: float = 1.0
    """Seconds."""
    longest_backoff: float = 60.0
    """Seconds."""
    random: Random = _SYSTEM_RANDOM
    """Where jitter comes from."""

    def pause(self, job: QueuedJob, error: BaseException, *, failures: int) -> float | None:
        """Log a failure, the one with that number, and return the seconds to wait; None: drop the job."""
        again = failures < self.tries
        # Neither message nor traceback: both can hold what a log must not.
        _log.warning(
            "job_failed" if again else "job_dropped",
            kind=job.kind.value,
            subject=str(job.subject),
            failures=failures,
            error=type(error).__qualname__,
        )
        if not again:
            return None
        return self.random.uniform(0.0, min(self.longest_backoff, self.backoff * 2**failures))
