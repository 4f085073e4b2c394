"""Requests as they come in: JSON with base64 images, or multipart with files; the same fields either way."""

import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
from litestar import Request
from litestar.exceptions import ClientException

from application.ports.keyed_hash import KeyedHash
from application.use_cases.idempotency import Once
from application.use_cases.references.enrol_references import SentImage
from domain.credential import DEFAULT_OVERLAP
from domain.errors import ImageTooLarge, InvalidValue
from entrypoints.http.access import AGAIN_SECONDS, principal_of, require_still
from entrypoints.http.forms import Part, read_form

T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R")

IDEMPOTENCY_HEADER = "idempotency-key"
IDEMPOTENCY_KEY_LENGTH = 255
FILENAME_LENGTH = 255

JSON_BYTES = 20 * 1024 * 1024
"""Of a JSON body: an image of 10 MiB in base64, and more. Decoding it holds up everybody else, 2.4 ms a MiB where
that was measured; larger ones come as forms."""

Time = Annotated[datetime, msgspec.Meta(tz=True)]

_FILES = ("image", "images", "other_image")


class Body(msgspec.Struct, Generic[T], frozen=True):
    """A request's fields, with the names of its files."""

    fields: T
    filenames: tuple[str | None, ...] = ()
    """Of `image` and `images`, in order; None where none was given."""


class ImageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One image, or several frames of which the best is used."""

    image: bytes | None = None
    """Base64 in JSON, a file in multipart. JPEG, PNG or WebP."""
    images: list[bytes] | None = None

    def frames(self) -> list[bytes]:
        """Return what was sent under either name. Raises `InvalidValue` for none or both."""
        if (self.image is None) == (not self.images):
            raise InvalidValue("send an image as `image`, or several as `images`", field="image")
        return [self.image] if self.image is not None else list(self.images or ())


class EnrolBody(ImageBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Images of one person; multipart repeats `image`."""

    person_id: UUID | None = None
    external_id: str | None = None
    """Makes the person if there is none yet."""
    metadata: dict[str, str] | None = None
    """For a person who is made by this call, as is what follows."""
    retention_days: int | None = None
    consent_expires_at: datetime | None = None


class EnrolBatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 100 people with their images."""

    items: list[EnrolBody]


class CompareBody(ImageBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Two images."""

    other_image: bytes | None = None
    threshold: float | None = None
    target_fmr: float | None = None


class VerifyBody(CompareBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A probe, and whom it claims to be: exactly one of the four."""

    gallery: str | None = None
    """Id or name; `default` where it is missing."""
    person_id: UUID | None = None
    external_id: str | None = None
    reference_id: UUID | None = None


class VerifyBatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 100 verifications."""

    items: list[VerifyBody]


class SearchBody(ImageBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A probe, and how to search for it."""

    gallery: str | None = None
    """Id or name; `default` where it is missing."""
    faces: str = "largest"
    """`largest` or `all`."""
    limit: int = 10
    threshold: float | None = None
    target_fpir: float | None = None
    people: list[UUID] | None = None
    """Search among these people alone."""


class SearchBatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 100 searches."""

    items: list[SearchBody]


class PolicyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a gallery asks for; what is left out has the service's default."""

    target_fmr: float | msgspec.UnsetType = msgspec.UNSET
    target_fpir: float | msgspec.UnsetType = msgspec.UNSET
    verification_threshold: float | msgspec.UnsetType | None = msgspec.UNSET
    search_threshold: float | msgspec.UnsetType | None = msgspec.UNSET
    refused_reasons: list[str] | msgspec.UnsetType = msgspec.UNSET
    keep_images: bool | msgspec.UnsetType = msgspec.UNSET
    hide_uncertain: bool | msgspec.UnsetType = msgspec.UNSET
    retention_days: int | msgspec.UnsetType | None = msgspec.UNSET
    consent_expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET


class GalleryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new gallery."""

    name: str
    policy: PolicyBody = PolicyBody()


class GalleryChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What changes of a gallery."""

    name: str | None = None
    policy: PolicyBody | None = None


class MigrationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a gallery is to go."""

    to: str | None = None
    """A pack, `<pack>@<version>`, or a space; missing: the only other model that is served."""
    switch: bool = False
    """Change over as soon as all references have followed; without it nothing changes but the report."""
    leave_behind: bool = False
    """Change over even though some references could not follow: they are kept, and not found any more."""


class PersonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new person."""

    external_id: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    retention_days: int | None = None
    """Erased so many days after the last enrolment; null: as the gallery's policy says."""
    consent_expires_at: datetime | None = None
    """Not compared and erased from then on; null: as the gallery's policy says."""


class PersonChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What changes of a person; null takes a field away."""

    external_id: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    retention_days: int | msgspec.UnsetType | None = msgspec.UNSET
    consent_expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET


class MergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The other person of a merge."""

    person_id: UUID


class ApiKeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new API key."""

    name: str
    """What it is for."""
    scopes: list[str]
    galleries: list[str] | None = None
    """Ids or names of the only galleries that it is for; missing: all, and those that are made later."""
    expires_at: Time | None = None
    """Missing: never."""


class RotationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For how long the old key is good beside the new one."""

    overlap_seconds: int = int(DEFAULT_OVERLAP.total_seconds())
    """0 to 2,592,000 (30 days); a day where it is missing."""


class WorkspaceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new workspace."""

    name: str
    owner_id: UUID | None = None
    """The user who owns it; missing: who makes it."""


class WorkspaceChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What changes of a workspace."""

    name: str | None = None


class MemberBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new member, by id: an address that is told to be nobody's would tell whose there are. Those are invited."""

    user_id: UUID
    role: str
    """`owner`, `admin`, `operator` or `viewer`."""


class InvitationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An invitation to a workspace."""

    role: str
    """`owner`, `admin`, `operator` or `viewer`."""
    email: str | None = None
    """The one address that may use it; missing: whoever has the link."""


class MemberChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A member's new role."""

    role: str
    """`owner`, `admin`, `operator` or `viewer`."""


async def read_body(request: Request[Any, Any, Any], kind: type[T]) -> Body[T]:
    """Decode a body, once it is there.

    Raises `InvalidValue` that names the field, `ImageTooLarge`, or 415 for another media type; and what stands against
    a caller whose credential or role came to its end while the body was on its way.
    """
    began = time.monotonic()
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        body = _from_form(read_form(await request.body(), content_type), kind)
    elif media_type in {"application/json", ""} or media_type.endswith("+json"):
        raw = await request.body()
        if len(raw) > JSON_BYTES:
            raise ClientException(status_code=413, detail="as JSON")
        body = Body(_converted(lambda text: msgspec.json.decode(text, type=kind), raw))
    else:
        raise ClientException(status_code=415, detail="send application/json or multipart/form-data")
    _check_sizes(body.fields, request.app.state.max_image_bytes)
    if time.monotonic() - began > AGAIN_SECONDS:
        await require_still(request)
    return body


def sent_images(body: ImageBody, filenames: tuple[str | None, ...]) -> list[SentImage]:
    """Return the images of a body with the names of their files."""
    frames = body.frames()
    names = filenames if len(filenames) == len(frames) else (None,) * len(frames)
    return [SentImage(content=content, filename=name) for content, name in zip(frames, names, strict=True)]


def refuse_idempotency_key(request: Request[Any, Any, Any]) -> None:
    """Raise `InvalidValue` for an `Idempotency-Key`, where the answer holds a secret: that is kept nowhere."""
    if IDEMPOTENCY_HEADER in request.headers:
        raise InvalidValue(
            "the answer may hold a secret, which is not kept, so this call cannot be repeated: send it without the"
            " header; after a lost answer make another key, link or session",
            field="Idempotency-Key",
        )


def once(
    request: Request[Any, Any, Any], keyed_hash: KeyedHash, fields: msgspec.Struct, kind: type[R], *, item: int = 0
) -> Once[R] | None:
    """Return what makes this call, or one item of it, one that is done once; None without an `Idempotency-Key`.

    The fingerprint is taken of the parsed parts: multipart boundaries differ from call to call.
    """
    key = request.headers.get(IDEMPOTENCY_HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_LENGTH or not key.isprintable():
        raise InvalidValue(
            f"an idempotency key has 1 to {IDEMPOTENCY_KEY_LENGTH} printable characters", field="Idempotency-Key"
        )
    # Bound to the caller too: one client's key never answers with what another client asked.
    call = f"{_caller(request)} {request.method} {request.url.path}\n".encode()
    parts = hashlib.sha256(call)
    _take(fields, parts)
    return Once(
        key=f"{key}#{item}",
        fingerprint=keyed_hash.digest("idempotency", parts.digest()),
        call=keyed_hash.digest("idempotency", hashlib.sha256(call).digest()),
        encode=msgspec.json.encode,
        decode=lambda raw: msgspec.json.decode(raw, type=kind),
    )


def _caller(request: Request[Any, Any, Any]) -> object:
    principal = principal_of(request)
    return principal.key or principal.user


def _take(value: object, parts: "hashlib._Hash") -> None:
    """Hash a value, images as they are: writing them in base64 first would hold up everybody else."""
    if isinstance(value, msgspec.Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        parts.update(b"bytes %d\n" % len(value))
        parts.update(value)
    elif isinstance(value, dict):
        parts.update(b"fields %d\n" % len(value))
        for name in sorted(value):
            parts.update(f"{name!r}\n".encode())
            _take(value[name], parts)
    elif isinstance(value, list):
        parts.update(b"items %d\n" % len(value))
        for item in value:
            _take(item, parts)
    else:
        parts.update(repr(value).encode("utf-8", "surrogatepass") + b"\n")


def _from_form(parts: Sequence[Part], kind: type[T]) -> Body[T]:
    known = _fields_of(kind)
    found: dict[str, object] = {}
    files = [part for part in parts if part.name in {"image", "images"}]
    for part in parts:
        if part.name in _FILES and part.filename is None:
            raise InvalidValue("send this as a file of the form, with a filename", field=part.name)
        if part.name not in {"image", "images"}:
            _put_once(found, part.name, part.content if part.filename else _structured(part.name, part.text(), known))
    if len(files) == 1:
        found["image"] = files[0].content
    elif files:
        found["images"] = [file.content for file in files]
    names = tuple(_plain_name(file.filename) for file in files)
    return Body(_converted(lambda raw: msgspec.convert(raw, kind, strict=False), found), names)


@cache
def _fields_of(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    # Evaluating annotations costs as much as reading the form.
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _put_once(found: dict[str, object], name: str, value: object) -> None:
    if name in found:
        raise InvalidValue("this field came twice", field=name)
    found[name] = value


def _structured(name: str, value: str, known: dict[str, msgspec.structs.FieldInfo]) -> object:
    """Read fields that hold more than text, such as `metadata`, from JSON; a list may be comma-separated."""
    if name in known and not _is_text(known[name].type) and value[:1] in {"{", "["}:
        return _converted(msgspec.json.decode, value, field=name)
    if name == "people":
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _is_text(kind: object) -> bool:
    return kind is str or str in getattr(kind, "__args__", ())


def _converted(read: Callable[[Any], R], raw: object, field: str = "") -> R:
    try:
        return read(raw)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        path = [where.rstrip("`").lstrip(".").removesuffix("[...]"), _named_in(what)]
        name = ".".join(part for part in path if part) or field or "body"
        raise InvalidValue(what, field=name) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(f"not JSON: {error}", field=field or "body") from error


def _named_in(what: str) -> str | None:
    """Return the field that a message about a missing or unknown one names in back quotes."""
    parts = what.split("`")
    return parts[1] if "field" in what and len(parts) > 1 else None


def _plain_name(filename: str | None) -> str | None:
    """Return a file's own name, without folders, control characters and excess; it is only ever shown."""
    if not filename:
        return None
    last = filename.replace("\\", "/").rpartition("/")[2]
    plain = "".join(character for character in last if character.isprintable())[:FILENAME_LENGTH]
    return plain or None


def _check_sizes(fields: msgspec.Struct, max_image_bytes: int) -> None:
    items = getattr(fields, "items", None)
    for one in items if isinstance(items, list) else [fields]:
        for name in _FILES:
            value = getattr(one, name, None)
            for content in value if isinstance(value, list) else [value]:
                if isinstance(content, bytes) and len(content) > max_image_bytes:
                    raise ImageTooLarge(f"an image has at most {max_image_bytes / 2**20:g} MiB")
