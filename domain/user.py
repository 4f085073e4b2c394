"""Accounts that sign in. A user is no person whose face is enrolled."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

from domain.errors import InvalidValue, PasswordRefused

UserId = NewType("UserId", UUID)
SessionId = NewType("SessionId", UUID)
LinkId = NewType("LinkId", UUID)

EMAIL_LENGTH = 254
"""Characters at most (RFC 5321, 4.5.3.1.3, less the angle brackets)."""
NAME_LENGTH = 255

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1024
"""Characters. NIST SP 800-63B-4, 3.1.1.2, asks for 15 where a password stands alone, 8 at least, and for 64 or more to
be taken; no rule about kinds of characters. Twelve, with the commonest refused, is our choice between."""

FREE_FAILURES = 5
FIRST_LOCK = timedelta(seconds=2)
LONGEST_LOCK = timedelta(minutes=15)
"""Failed logins that cost nothing, then a lock that doubles with each further one: 100 guesses take a day."""


class Registration(StrEnum):
    """Who may make an account of their own."""

    OPEN = "open"
    INVITATION = "invitation"
    """Whoever has a one-time link."""
    CLOSED = "closed"
    """Nobody: administrators make accounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account."""

    id: UserId
    email: str
    """Unique in the installation, compared without case."""
    name: str
    administrator: bool
    """Of the instance; apart from roles in workspaces."""
    has_password: bool
    created_at: datetime
    updated_at: datetime
    version: int
    """Counts changes from 1; the entity tag."""
    deleted_at: datetime | None = None
    last_login_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login on one device, for as long as its refresh token is renewed."""

    id: SessionId
    user: UserId
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    agent: str
    """What the client called itself (`User-Agent`), shortened; for its user to recognise."""
    ended_at: datetime | None = None

    def open(self, now: datetime) -> bool:
        """Tell whether it is neither ended nor expired at `now`."""
        return self.ended_at is None and now < self.expires_at


def checked_email(email: str, *, field: str = "email") -> str:
    """Return it trimmed, in Unicode's form NFC. Raises `InvalidValue` unless it has one @ between two parts.

    Nothing more is asked: whether mail arrives there only mail can tell.
    """
    plain = unicodedata.normalize("NFC", email.strip())
    local, _, domain = plain.rpartition("@")
    if not local or not domain or len(plain) > EMAIL_LENGTH or not plain.isprintable() or " " in plain:
        raise InvalidValue(
            f"an email address has an @ and at most {EMAIL_LENGTH} characters, without spaces", field=field
        )
    return plain


def compared_email(email: str) -> str:
    """Return what two addresses of one account have in common: its letters without their case."""
    return unicodedata.normalize("NFC", email.casefold())


def checked_name(name: str, *, field: str = "name") -> str:
    """Return it trimmed. Raises `InvalidValue` for more than 255 characters, or any that cannot be printed."""
    plain = name.strip()
    if len(plain) > NAME_LENGTH or not plain.isprintable():
        raise InvalidValue(f"{field} has at most {NAME_LENGTH} printable characters", field=field)
    return plain


def checked_password(password: str, *, common: bool, email: str = "", field: str = "password") -> str:
    """Return it in Unicode's form NFKC, as it is hashed. Raises `PasswordRefused`, which says what to do.

    Args:
        password: as it was typed.
        common: whether it is among the commonest.
        email: the account's, which is no password for it.
        field: as the client wrote it, for the error.
    """
    plain = normalised_password(password)
    if len(plain) < SHORTEST_PASSWORD:
        raise PasswordRefused(
            f"a password has at least {SHORTEST_PASSWORD} characters: several words make a good one", field=field
        )
    if len(plain) > LONGEST_PASSWORD:
        raise PasswordRefused(f"a password has at most {LONGEST_PASSWORD} characters", field=field)
    if common or len(set(plain)) == 1 or plain.casefold() == email.casefold():
        raise PasswordRefused("this password is among those that are tried first: choose another", field=field)
    return plain


def normalised_password(password: str) -> str:
    """Return a password in Unicode's form NFKC, so that keyboards that write a letter in two ways open one account.

    NIST SP 800-63B-4, 3.1.1.2.
    """
    return unicodedata.normalize("NFKC", password)


def lock_after(failures: int) -> timedelta:
    """Return for how long an account is locked after so many failed logins in a row."""
    if failures <= FREE_FAILURES:
        return timedelta(0)
    return min(FIRST_LOCK * (1 << min(failures - FREE_FAILURES - 1, 16)), LONGEST_LOCK)
