from typing import Final

from sqlalchemy import ColumnElement, DateTime, Integer, case, cast, func, select

from adapters.persistence.tables import GALLERIES, PEOPLE, REFERENCES

_TIME: Final = DateTime(timezone=True)

_CONSENT: Final = func.coalesce(
    PEOPLE.c.consent_expires_at, cast(GALLERIES.c.policy["consent_expires_at"].astext, _TIME)
)
_DAYS: Final = func.coalesce(PEOPLE.c.retention_days, cast(GALLERIES.c.policy["retention_days"].astext, Integer))

CONSENTED: Final[ColumnElement[bool]] = _CONSENT.is_(None) | (func.now() < _CONSENT)
"""Whether a row of `PEOPLE`, joined to its gallery, may be compared: `Retention.consented` by the server's clock."""

LAST_ENROLLED: Final = (
    select(func.max(REFERENCES.c.created_at))
    .where(REFERENCES.c.workspace_id == PEOPLE.c.workspace_id, REFERENCES.c.person_id == PEOPLE.c.id)
    .correlate(PEOPLE)
    .scalar_subquery()
)

ERASE_AFTER: Final = func.least(
    _CONSENT,
    case(
        (
            _DAYS.is_not(None),
            func.coalesce(LAST_ENROLLED, PEOPLE.c.created_at) + func.make_interval(0, 0, 0, _DAYS),
        )
    ),
)
"""`Retention.erase_after` of such a row, null for never; the largest or smallest of several leaves nulls out."""
