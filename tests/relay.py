"""A stretch of wire between a client and a real server, which a test can cut."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import Final, Self
from urllib.parse import urlsplit

_CHUNK: Final = 2**16


class Relay:
    """Carries bytes to a server and back, over a free port of its own, until the block ends."""

    def __init__(self, target: str) -> None:
        """Lead to the host and port of the address `target`."""
        address = urlsplit(target)
        self._host, self._port, self._scheme = address.hostname, address.port, address.scheme
        self._writers: set[StreamWriter] = set()
        self.url = ""
        self.breaks_up: Callable[[bytes], bool] = lambda _: False
        """Asked with what a client sends: true ends its connection there."""
        self.breaks_down: Callable[[bytes], bool] = lambda _: False
        """The same with what the server answers."""
        self.lag = 0.0
        """Seconds that each 64 KiB of an answer wait."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()  # nobody is there, and whoever came is told so
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(
                self._pump(reader, back, up=True),
                self._pump(there, writer, up=False),
            )
        except ConnectionError:
            pass  # one side went away, and the other one follows
        finally:
            for end in (writer, back):
                end.transport.abort()
            self._writers -= {writer, back}

    async def _pump(self, reader: StreamReader, writer: StreamWriter, *, up: bool) -> None:
        while sent := await reader.read(_CHUNK):
            if (self.breaks_up if up else self.breaks_down)(sent):
                raise ConnectionAbortedError
            await asyncio.sleep(0.0 if up else self.lag)
            writer.write(sent)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
