"""ZIP archives that are sent while they are made: no more of one is in memory than a piece."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from typing import IO, final

from application.use_cases.erasure.export_person import ExportedPiece


async def zipped(pieces: AsyncIterator[ExportedPiece]) -> AsyncIterator[bytes]:
    """Give an archive of files whose pieces come one after the other."""
    out = _Out()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        file: IO[bytes] | None = None
        name: str | None = None
        try:
            async for piece in pieces:
                if file is None or piece.name != name:
                    if file is not None:
                        file.close()
                    name, file = piece.name, archive.open(piece.name, "w")
                # Compressing holds up nobody else.
                await asyncio.to_thread(file.write, piece.content)
                if taken := out.take():
                    yield taken
        finally:
            if file is not None:
                file.close()
    yield out.take()


@final
class _Out(io.RawIOBase):
    """Keeps what is written until it is taken; it cannot go back, so that sizes follow the files."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: object, /) -> int:
        raw = bytes(content)  # type: ignore[call-overload]
        self._written.append(raw)
        return len(raw)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken = b"".join(self._written)
        self._written.clear()
        return taken
