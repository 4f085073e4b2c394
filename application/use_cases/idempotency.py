"""The same creating call, made twice, is done once."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar, final

from application.ports.cipher import Cipher, DataKeyId, Place, WrappedKey
from application.ports.clock import Clock
from application.ports.id_generator import IdGenerator
from application.ports.repositories import Answer, AnswerRepository
from domain.errors import IdempotencyKeyReused, PersonNotFound
from domain.person import PersonId
from domain.workspace import WorkspaceId

REMEMBERED_FOR = timedelta(hours=24)
_DONE = "\0done"
"""Behind a key: what it was for was done. No client's key has such a character."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Once(Generic[T]):
    """A creating call that carries an idempotency key."""

    key: str
    fingerprint: bytes
    """Keyed hash of the call's parts: path and every field, files by their content."""
    call: bytes
    """Keyed hash of who calls what, without a word of what was sent: all that outlives the person."""
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedAnswers:
    """What was answered to idempotency keys, sealed, for `REMEMBERED_FOR`."""

    answers: AnswerRepository
    cipher: Cipher
    ids: IdGenerator
    clock: Clock

    async def earlier(self, workspace: WorkspaceId, once: Once[T] | None) -> T | None:
        """Return what the same call was answered before, None for a new one.

        Raises `IdempotencyKeyReused` where the key came with another body or another call, and `PersonNotFound` where
        it came with this one, whose person is gone since: they are not to be brought back.
        """
        if once is None:
            return None
        answer = await self.answers.find(workspace, once.key, now=self.clock.now())
        if answer is None:
            done = await self.answers.find(workspace, once.key + _DONE, now=self.clock.now())
            if done is None:
                return None
            # Both may have been committed between the two looks.
            answer = await self.answers.find(workspace, once.key, now=self.clock.now())
            if answer is None:
                _require_same(done.fingerprint, once.call)
                raise PersonNotFound(
                    "this idempotency key was used before, for somebody who was deleted since: use a new key for others"
                )
        _require_same(answer.fingerprint, once.fingerprint)
        place = _place(workspace, answer.key, once.key, once.fingerprint)
        return once.decode(self.cipher.open(answer.body, key=answer.key, place=place))

    async def keep(
        self, workspace: WorkspaceId, once: Once[T] | None, result: T, *, person: PersonId | None = None
    ) -> bool:
        """Remember `result` in the running transaction; it is forgotten with `person`, that it was done is not.

        False where a call with the same key was committed in between: then this one must be rolled back.
        """
        if once is None:
            return True
        until = self.clock.now() + REMEMBERED_FOR
        kept = await self._kept(workspace, once.key, once.encode(result), once.fingerprint, person=person, until=until)
        if not kept or person is None:
            return kept
        # Where the first one's answer went with its person already, this is what tells that there was a first one.
        return await self._kept(workspace, once.key + _DONE, b"", once.call, person=None, until=until)

    async def committed(self, workspace: WorkspaceId, once: Once[T] | None) -> T:
        """Return what the call that came first was answered, after `keep` said False and a rollback."""
        earlier = await self.earlier(workspace, once)
        if earlier is None:
            raise IdempotencyKeyReused("a call with this idempotency key ended at this moment: send it again")
        return earlier

    async def _kept(
        self,
        workspace: WorkspaceId,
        name: str,
        body: bytes,
        fingerprint: bytes,
        *,
        person: PersonId | None,
        until: datetime,
    ) -> bool:
        key = self.cipher.new_key(DataKeyId(self.ids.new()), workspace=workspace)
        place = _place(workspace, key, name, fingerprint)
        return await self.answers.keep(
            workspace,
            name,
            Answer(fingerprint=fingerprint, key=key, body=self.cipher.seal(body, key=key, place=place)),
            person=person,
            expires_at=until,
        )


def _place(workspace: WorkspaceId, key: WrappedKey, name: str, fingerprint: bytes) -> Place:
    """Return the place of an answer: it opens for the call that it was given to, under the name that it was kept by."""
    return Place(workspace=workspace, subject=key.id, purpose=f"answer/{fingerprint.hex()}/{name}")


def _require_same(kept: bytes, sent: bytes) -> None:
    if not hmac.compare_digest(kept, sent):
        raise IdempotencyKeyReused("this idempotency key was used before, with another body: use a new key")
