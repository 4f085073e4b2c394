"""What no log may hold: secrets, and what points at a person."""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Final
from uuid import UUID

from structlog.typing import EventDict

MASK: Final = "***"

_OF_SECRETS: Final = (
    "password|passwd|passphrase|pwd|secret|token|jwt|bearer|authorization|credentials?|cookie|session|nonce"
    "|api_?key|x_api_key|private_?key|access_?key|secret_?key|master_?key|data_?key|signing_?key|dsn"
)
_OF_PEOPLE: Final = (
    "external_?id|e_?mail|name|full_?name|user_?name|first_?name|last_?name|display_?name|phone|birth_?date|metadata"
    "|file_?names?|images?|photo(?:graph)?s?|picture|frames?|embeddings?|templates?|vectors?|landmarks|biometrics?"
    "|address|ip|client|body|form|query|headers"
)
_NAMES: Final = re.compile(
    rf"(?:[a-z0-9]+[_.-])*(?:{_OF_SECRETS})s?(?:[_.-](?:hash|value|id|text|old|new))?|(?:{_OF_PEOPLE})"
    rf"|(?:[a-z0-9]+[_.-])+(?:external_?id|e_?mail|image|embedding|template|vector|file_?name)s?",
)
"""Fields that are masked whatever they hold: any name that ends in a secret's, a person's own as they stand."""

_IN_TEXT: Final = re.compile(
    r"(?P<address>\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]*@"  # a password in an address, and its user
    r"|\bf[prl]_[A-Za-z0-9_-]{8,}"  # our API keys, refresh tokens and one-time links
    r"|\beyJ[\w-]{6,}(?:\.[\w-]*){1,4}"  # JWTs, whole or cut
    r"|(?P<scheme>\b(?:bearer|basic|apikey|digest)\s+)[\w.~+/=:-]{4,}"
    r"|-----BEGIN[\s\S]*?(?:-----END[^-]*-----|\Z)"
    r"|(?P<field>\b[\w.-]{0,40}(?:" + _OF_SECRETS + r"|external_?id|e_?mail|metadata|file_?name|embedding|template)s?"
    r"(?:\\?[\"')])?\s*(?:=>|[=:])\s*(?:(?:bearer|basic|apikey|digest)\s+)?)(?:\\?\"[^\"]*\"?|'[^']*'?|\{[^}]*\}?|\[[^\]]*\]?|\([^)]*\)?|[^\s\"',;&)}\]]+)"
    r"|[\w.+%-]{1,64}@[\w-]+(?:\.[\w-]+)*"  # e-mail addresses
    r"|[A-Za-z0-9+/_-]{120,}={0,2}"  # base64 that is too long for an id or a digest
    r"|(?:\[|array\(\[)\s*-?\d[\d.e+-]*(?:,?\s+-?\d[\d.e+-]*){7,}[^\]]*\]?"  # a vector as text
    r"|\bb(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?)|(?:\\x[0-9a-f]{2}){4,}",  # bytes as text
    re.IGNORECASE,
)
_SIGNS: Final = (
    *("@", "fp_", "fr_", "fl_", "eyj", "bearer", "basic", "apikey", "digest", "-----", "[", "\\x", "b'", 'b"'),
    *("pass", "pwd", "secret", "token", "jwt", "authorization", "credential", "cookie", "session", "nonce", "key"),
    *("dsn", "external", "mail", "metadata", "file", "embedding", "template"),
)
"""A short text without any of these, in lower case, holds nothing that the expression would find, which costs more."""
_SHORT: Final = 120
_TOLD: Final = (UUID, date, timedelta, PurePath, Enum)
_DEEPEST: Final = 6
_LONGEST: Final = 2000
"""Characters of one text: what is longer is no message."""
_MANY: Final = 8
"""Numbers in a row, which are taken for a vector from here on."""


def redact(_: object, __: str, event: EventDict) -> EventDict:
    """Mask fields by their names, and what looks like a secret or a person in every text, at any depth.

    Bytes are told by their length, and objects by their kind alone. `exc_info` is left for who tells an error's kind
    and place and none of its words.
    """
    return {name: value if name in {"exc_info", "_record"} else _field(name, value, 0) for name, value in event.items()}


def redacted_text(text: str) -> str:
    """Return a text without secrets, addresses of people, images and vectors."""
    if len(text) < _SHORT:
        lower = text.lower()
        if not any(sign in lower for sign in _SIGNS):
            return text
    return _IN_TEXT.sub(_masked, text[:_LONGEST] + ("..." if len(text) > _LONGEST else ""))


def redacted(value: object, *, name: object = None) -> object:
    """Return what a log may hold of a value that stands under this name, or under none."""
    return _field(name, value, 0)


def _field(name: object, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(name, str) and _is_masked(name):
        return MASK
    return _redacted(value, depth)


@lru_cache(maxsize=1024)
def _is_masked(name: str) -> bool:
    return _NAMES.fullmatch(name[:_SHORT].lower().replace("-", "_")) is not None


def _redacted(value: object, depth: int) -> object:  # noqa: PLR0911 - one for each kind
    if isinstance(value, str):
        return redacted_text(value.value if isinstance(value, Enum) else value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, _TOLD):
        return redacted_text(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth >= _DEEPEST:
        return MASK
    if isinstance(value, Mapping):
        return {_key(name): _field(name, one, depth + 1) for name, one in value.items()}
    if isinstance(value, Sequence | AbstractSet):
        if len(value) >= _MANY and all(isinstance(one, int | float) for one in value):
            return f"<{len(value)} numbers>"
        return [_redacted(one, depth + 1) for one in value]
    return f"<{type(value).__name__}>"


def _key(name: object) -> str:
    return redacted_text(name) if isinstance(name, str) else str(_redacted(name, _DEEPEST))


def _masked(found: re.Match[str]) -> str:
    if found["address"]:
        return f"{found['address']}{MASK}@"
    return f"{found['scheme'] or found['field'] or ''}{MASK}"
