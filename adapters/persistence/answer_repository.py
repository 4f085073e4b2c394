from datetime import datetime, timedelta
from typing import final

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import ANSWERS
from application.ports.cipher import DataKeyId, WrappedKey
from application.ports.keyed_hash import KeyedHash
from application.ports.repositories import Answer, AnswerRepository
from domain.person import PersonId
from domain.workspace import WorkspaceId

_KEPT_FOR = timedelta(hours=24)


@final
class SqlAnswerRepository(AnswerRepository):
    """Remembered answers in PostgreSQL."""

    def __init__(self, connection: SqlConnection, keyed_hash: KeyedHash) -> None:
        self._connection = connection
        self._keyed_hash = keyed_hash

    async def find(self, workspace: WorkspaceId, idempotency_key: str, *, now: datetime) -> Answer | None:
        answers = ANSWERS.c
        found = await self._connection.execute(
            select(ANSWERS).where(
                answers.workspace_id == workspace,
                answers.idempotency_digest == self._digest(workspace, idempotency_key),
                answers.expires_at > now,
            )
        )
        row = found.one_or_none()
        if row is None:
            return None
        return Answer(
            fingerprint=row.fingerprint,
            key=WrappedKey(id=DataKeyId(row.data_key_id), workspace=workspace, wrapped=row.wrapped),
            body=row.body,
        )

    async def keep(
        self,
        workspace: WorkspaceId,
        idempotency_key: str,
        answer: Answer,
        *,
        person: PersonId | None,
        expires_at: datetime,
    ) -> bool:
        kept = {
            "fingerprint": answer.fingerprint,
            "data_key_id": answer.key.id,
            "wrapped": answer.key.wrapped,
            "body": answer.body,
            "person_id": person,
            "expires_at": expires_at,
        }
        written = await self._connection.execute(
            insert(ANSWERS)
            .values(workspace_id=workspace, idempotency_digest=self._digest(workspace, idempotency_key), **kept)
            .on_conflict_do_update(
                constraint=ANSWERS.primary_key,
                set_=kept,
                # The caller's clock says what has expired, as in `find`: this answer is kept for 24 hours from now.
                where=ANSWERS.c.expires_at <= expires_at - _KEPT_FOR,
            )
        )
        return written.rowcount == 1

    async def purge(self, now: datetime) -> int:
        return (await self._connection.execute(delete(ANSWERS).where(ANSWERS.c.expires_at <= now))).rowcount

    def _digest(self, workspace: WorkspaceId, idempotency_key: str) -> bytes:
        return self._keyed_hash.digest("idempotency-key", workspace.bytes + idempotency_key.encode())
