"""ETag and If-Match: a change is made only to the version that was seen."""

from typing import Any

from litestar import Request

from domain.errors import InvalidValue

_LONGEST_VERSION = 18
"""Digits: more than any version ever has, and few enough to be read in no time."""


def entity_tag(version: int) -> dict[str, str]:
    """Return the header that names a version."""
    return {"ETag": f'"{version}"'}


def version_wanted(request: Request[Any, Any, Any]) -> int | None:
    """Return the version of `If-Match`, None without one or for `*`. Raises `InvalidValue` for anything else."""
    header = request.headers.get("if-match")
    if header is None or header.strip() == "*":
        return None
    tag = header.strip().removeprefix("W/").strip('"')
    if not tag.isascii() or not tag.isdigit() or len(tag) > _LONGEST_VERSION:
        raise InvalidValue("If-Match holds the entity tag of an earlier answer", field="If-Match")
    return int(tag)
