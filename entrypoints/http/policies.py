"""A gallery's policy from what a client sends of it."""

from dataclasses import replace

import msgspec

from domain.errors import InvalidValue
from domain.gallery import Policy
from domain.quality import Reason
from entrypoints.http.bodies import PolicyBody


def policy_from(body: PolicyBody, before: Policy) -> Policy:
    """Return `before` with what `body` changes. Raises `InvalidValue` for an unknown reason or a bad rate."""
    sent = {
        name: value
        for name, value in msgspec.structs.asdict(body).items()
        if value is not msgspec.UNSET and name != "refused_reasons"
    }
    if isinstance(body.refused_reasons, list):
        sent["refused_reasons"] = frozenset(_reason(name) for name in body.refused_reasons)
    return replace(before, **sent)


def _reason(name: str) -> Reason:
    try:
        return Reason(name)
    except ValueError as error:
        raise InvalidValue(
            f"'{name}' is no quality reason; there are {', '.join(Reason)}", field="policy.refused_reasons"
        ) from error
