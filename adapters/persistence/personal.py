"""What identifies people, sealed: how it is kept in their rows and read from them."""

import json
from collections.abc import Mapping
from typing import Any, Final, final

from sqlalchemy import Row

from adapters.persistence.tables import DATA_KEYS, PEOPLE
from application.ports.cipher import Cipher, DataKeyId, Place, WrappedKey
from application.ports.keyed_hash import KeyedHash
from domain.enrolment import ReferenceId
from domain.person import Person, PersonId
from domain.workspace import WorkspaceId

OWN_KEY: Final = DATA_KEYS.alias("own_key")
"""The data key that a person's own fields are sealed with, whatever references they have by a merge."""

IS_OWN_KEY: Final = (
    (OWN_KEY.c.workspace_id == PEOPLE.c.workspace_id)
    & (OWN_KEY.c.person_id == PEOPLE.c.id)
    & (OWN_KEY.c.id == PEOPLE.c.data_key_id)
)
OWN_KEY_COLUMNS: Final = (OWN_KEY.c.id.label("own_key_id"), OWN_KEY.c.wrapped.label("own_wrapped"))


@final
class PersonalFields:
    """Seals and opens an `external_id`, metadata and file names, each for its row and no other."""

    def __init__(self, cipher: Cipher, keyed_hash: KeyedHash) -> None:
        self._cipher = cipher
        self._keyed_hash = keyed_hash

    def digest(self, workspace: WorkspaceId, external_id: str) -> bytes:
        """Return what an `external_id` is looked up by and kept unique through."""
        return self._keyed_hash.digest("external-id", workspace.bytes + external_id.encode())

    def of_person(self, person: Person, key: WrappedKey) -> Mapping[str, object]:
        """Return the columns of a person's row that `key` seals."""
        told, workspace = person.external_id, person.workspace
        metadata = json.dumps(dict(person.metadata), ensure_ascii=False, separators=(",", ":"))
        return {
            "external_id": None if told is None else self._seal(told, key, workspace, person.id, "external_id"),
            "external_id_digest": None if told is None else self.digest(workspace, told),
            "metadata": self._seal(metadata, key, workspace, person.id, "metadata"),
        }

    def external_id(self, sealed: bytes | None, *, person: PersonId, key: WrappedKey) -> str | None:
        """Open what `of_person` sealed. Raises `CannotOpen`."""
        return None if sealed is None else self._open(sealed, key, person, "external_id")

    def metadata(self, sealed: bytes, *, person: PersonId, key: WrappedKey) -> Mapping[str, str]:
        """Open what `of_person` sealed. Raises `CannotOpen`."""
        opened: dict[str, str] = json.loads(self._open(sealed, key, person, "metadata"))
        return opened

    def of_filename(self, filename: str | None, *, reference: ReferenceId, key: WrappedKey) -> bytes | None:
        """Seal the name that a reference's image came under."""
        return None if filename is None else self._seal(filename, key, key.workspace, reference, "filename")

    def filename(self, sealed: bytes | None, *, reference: ReferenceId, key: WrappedKey) -> str | None:
        """Open what `of_filename` sealed. Raises `CannotOpen`."""
        return None if sealed is None else self._open(sealed, key, reference, "filename")

    def _seal(
        self, text: str, key: WrappedKey, workspace: WorkspaceId, subject: PersonId | ReferenceId, purpose: str
    ) -> bytes:
        place = Place(workspace=workspace, subject=subject, purpose=purpose)
        return self._cipher.seal(text.encode(), key=key, place=place)

    def _open(self, sealed: bytes, key: WrappedKey, subject: PersonId | ReferenceId, purpose: str) -> str:
        place = Place(workspace=key.workspace, subject=subject, purpose=purpose)
        return self._cipher.open(sealed, key=key, place=place).decode()


def own_key(workspace: WorkspaceId, row: Row[Any]) -> WrappedKey:
    """Return the key of a row with `OWN_KEY_COLUMNS`."""
    return WrappedKey(id=DataKeyId(row.own_key_id), workspace=workspace, wrapped=row.own_wrapped)
