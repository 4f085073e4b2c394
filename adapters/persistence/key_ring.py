from collections.abc import Sequence
from typing import final

from sqlalchemy import delete, extract, func, insert, select, text, tuple_

from adapters.persistence.connection import SqlConnection
from adapters.persistence.tables import KEY_RING
from application.ports.key_ring import KeyRing, RingEntry, RingPurpose

_ENTRIES = select(
    KEY_RING.c.purpose,
    KEY_RING.c.number,
    KEY_RING.c.master,
    KEY_RING.c.wrapped,
    # By the database's own clock, which also said when it came: those of its clients differ.
    extract("epoch", func.clock_timestamp() - KEY_RING.c.created_at).label("age"),
).order_by(KEY_RING.c.purpose, KEY_RING.c.number, KEY_RING.c.master)


@final
class SqlKeyRing(KeyRing):
    """The ring in PostgreSQL."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    async def entries(self) -> Sequence[RingEntry]:
        found = await self._connection.execute(_ENTRIES)
        return [
            RingEntry(
                purpose=RingPurpose(row.purpose),
                number=row.number,
                master=row.master,
                wrapped=row.wrapped,
                age=float(row.age),
            )
            for row in found
        ]

    async def change(self, before: Sequence[RingEntry], after: Sequence[RingEntry]) -> bool:
        # Against other changes alone: who reads the ring waits for nobody.
        await self._connection.execute(text("LOCK TABLE key_ring IN SHARE ROW EXCLUSIVE MODE"))
        there = {entry.identity for entry in await self.entries()}
        if there != {entry.identity for entry in before}:
            return False
        wanted = {entry.identity for entry in after}
        going = [(purpose.value, number, master) for purpose, number, master in there - wanted]
        if going:
            columns = KEY_RING.c
            await self._connection.execute(
                delete(KEY_RING).where(tuple_(columns.purpose, columns.number, columns.master).in_(going))
            )
        coming = [entry for entry in after if entry.identity not in there]
        if coming:
            await self._connection.execute(
                insert(KEY_RING).values(created_at=func.clock_timestamp()),
                [
                    {
                        "purpose": entry.purpose.value,
                        "number": entry.number,
                        "master": entry.master,
                        "wrapped": entry.wrapped,
                    }
                    for entry in coming
                ],
            )
        return True
