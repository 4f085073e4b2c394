"""Which secrets are good enough for production."""

import ipaddress
import re
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

SHORTEST: Final = 12
_FEWEST: Final = 5
"""Different characters; fewer are a pattern."""

_DEFAULTS: Final = frozenset(
    (
        *("admin", "administrator", "changeme", "changeit", "default", "example", "facepass", "faces", "guest"),
        *("letmein", "minio", "minioadmin", "mysecretpassword", "pass", "passwd", "password", "postgres"),
        *("postgresql", "pw", "qdrant", "qwerty", "redis", "root", "s3cr3t", "secret", "test", "user"),
    )
)
"""What images, guides and tired people set; also with digits and signs around it."""


def weakness(secret: str, *, user: str | None = None) -> str | None:
    """Return what is wrong with a secret, in words that do not tell it; None for nothing."""
    letters = re.sub(r"[^a-z]", "", secret.lower())
    if secret.lower() in _DEFAULTS or letters in _DEFAULTS:
        return "is a known default"
    if user and secret.lower() == user.lower():
        return "is the name of its user"
    if len(secret) < SHORTEST:
        return f"is shorter than {SHORTEST} characters"
    if len(set(secret)) < _FEWEST:
        return "repeats a few characters"
    return None


def address_weakness(address: str) -> str | None:
    """Return what is wrong with the password in an address; None for nothing.

    None is needed on this machine, over a socket of the file system, and where a certificate says who calls.
    """
    parts = urlsplit(address)
    query = parse_qs(parts.query)
    password = unquote(parts.password or "") or next(iter(query.get("password", [])), "")
    user = unquote(parts.username or "")
    if password:
        return weakness(password, user=user)
    if "sslcert" in query or is_here(query.get("host", [parts.hostname or ""])[0]):
        return None
    return "has no password"


def is_here(host: str) -> bool:
    """Tell whether a host is this machine: a loopback address, or a socket of the file system."""
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
