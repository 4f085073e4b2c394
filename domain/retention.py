"""How long somebody may be kept: what they agreed to, and what was promised to them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from domain.errors import InvalidValue

LONGEST_RETENTION = 36_500
"""Days: a hundred years. Who wants longer wants no end at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """An end to somebody's being kept, as a gallery sets it for all or as it was set for one person."""

    days: int | None = None
    """After the last enrolment; None: without an end."""
    consent_expires_at: datetime | None = None
    """From then on nobody may compare them any more; None: without an end."""

    def __post_init__(self) -> None:
        """Take the time in UTC. Raises `InvalidValue` for days outside 1..36500, and a time without its offset."""
        checked_retention_days(self.days)
        object.__setattr__(self, "consent_expires_at", checked_consent(self.consent_expires_at))

    def before(self, other: "Retention") -> "Retention":
        """Return what holds where `other` holds only where this one says nothing: each of the two by itself."""
        return Retention(
            days=other.days if self.days is None else self.days,
            consent_expires_at=self.consent_expires_at or other.consent_expires_at,
        )

    def erase_after(self, kept_since: datetime) -> datetime | None:
        """Return when they are due to be erased, None for never: at whichever end comes first.

        Args:
            kept_since: when their last reference was enrolled; where they have none, when they were made.
        """
        ends = [] if self.consent_expires_at is None else [self.consent_expires_at]
        if self.days is not None:
            ends.append(_later(kept_since, timedelta(days=self.days)))
        return min(ends, default=None)

    def consented(self, now: datetime) -> bool:
        """Whether they may be compared at `now`."""
        return self.consent_expires_at is None or now < self.consent_expires_at


def checked_retention_days(days: int | None, field: str = "retention_days") -> int | None:
    """Return it as it is. Raises `InvalidValue` unless it is None or 1..36500 days."""
    if days is not None and not 1 <= days <= LONGEST_RETENTION:
        raise InvalidValue(f"retention_days is 1 to {LONGEST_RETENTION}, or null for no end", field=field)
    return days


def checked_consent(moment: datetime | None, field: str = "consent_expires_at") -> datetime | None:
    """Return it in UTC. Raises `InvalidValue` for a time without its offset.

    One that has passed is a consent that was withdrawn, and allowed.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidValue("a time needs its offset from UTC, as in 2030-01-31T12:00:00Z", field=field)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidValue("the time lies outside of the years 1 to 9999", field=field) from error


def _later(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


NO_END = Retention()
"""As long as nobody says otherwise."""
