from datetime import datetime

from application.ports.repositories import ApiKeyRepository
from domain.credential import ApiKey, Principal
from domain.errors import ApiKeyNotFound, GalleryNotFound, InvalidValue, ScopeMissing
from domain.gallery import GalleryId
from domain.permission import Scope


def require_scopes_within(scopes: frozenset[Scope], maker: Principal) -> None:
    """Raise `ScopeMissing` unless whoever makes, rotates or revokes a key has each of its scopes."""
    beyond = scopes - maker.scopes
    if beyond:
        raise ScopeMissing(f"nobody gives or takes what they have not themselves: {', '.join(sorted(beyond))}")


def limits_within(galleries: frozenset[GalleryId] | None, maker: Principal) -> frozenset[GalleryId] | None:
    """Return the galleries of a new key, as they are.

    Raises `InvalidValue` where a key that is limited would make one that is not, and `GalleryNotFound` for a gallery
    that is not the maker's.
    """
    if maker.galleries is None:
        return galleries
    if galleries is None:
        raise InvalidValue("an API key that is limited to galleries makes no other ones: name some", field="galleries")
    if not galleries <= maker.galleries:
        raise GalleryNotFound("no such gallery")
    return galleries


def expiry_within(expires_at: datetime | None, maker: Principal, *, now: datetime) -> datetime | None:
    """Return when a new key expires: with the maker, where nothing is said and that one is a key which expires.

    Raises `InvalidValue` for a time that is past, or later than the maker's own.
    """
    if expires_at is None:
        return maker.ends_at
    if expires_at <= now:
        raise InvalidValue("a key expires in the future", field="expires_at")
    if maker.ends_at is not None and expires_at > maker.ends_at:
        raise InvalidValue(f"a key outlives not the one that made it: {maker.ends_at.isoformat()}", field="expires_at")
    return expires_at


async def require_not_replaced(maker: Principal, keys: ApiKeyRepository) -> None:
    """Raise `ScopeMissing` where whoever makes, rotates or revokes a key is one that has another in its place.

    It was rotated because it may have leaked: whoever has it must neither end the new one nor make others that would.
    """
    if maker.key is None or maker.workspace is None:
        return
    own = await keys.get(maker.workspace, maker.key)
    if own.revoked_at is not None or await keys.is_replaced(own):
        raise ScopeMissing("this API key was rotated or revoked: it makes, rotates and revokes no other ones")


def require_seen(key: ApiKey, viewer: Principal) -> ApiKey:
    """Return the key. Raises `ApiKeyNotFound` where the viewer is limited to galleries, and it to others or none."""
    if viewer.galleries is not None and (key.galleries is None or not key.galleries <= viewer.galleries):
        raise ApiKeyNotFound("no such API key")
    return key
