"""Several processes that serve one port, and the one that keeps them running."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final, final

import structlog

from entrypoints.signals import told_to_end
from entrypoints.wiring.start_error import StartError

log = structlog.get_logger("facepass.processes")

DRAIN_SECONDS: Final = 20
"""What calls that run have left to end in, once the service is told to."""

_GRACE: Final = 10.0
"""Seconds past that in which pools and models are closed, before a process is killed."""

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
"""Seconds before a process that ended is begun again: doubled each time, until one has served for `_STEADY`."""

_STEADY: Final = 60.0

_READY: Final = b"."


async def keep_serving(command: Sequence[str], *, count: int, ready: Callable[[], None]) -> None:
    """Keep `count` processes serving until SIGINT or SIGTERM, and wait until they have ended.

    The first one is waited for alone: what only a first start does (the pack, the schema, the keys) is done and shown
    once, and what stops a start is said once. Later each that ends is begun again, whyever it ended.

    Args:
        command: begins one; it is told the descriptor by which it knows its parent as `--parent`.
        count: at least 1.
        ready: called once, when all serve.

    Raises:
        StartError: where one ends before all serve; it has said why.
    """
    serving = [asyncio.Event() for _ in range(count)]
    keeping: list[asyncio.Task[None]] = []
    with told_to_end() as told:
        waiting = asyncio.create_task(told.wait())
        try:
            for some in (serving[:1], serving[1:]):
                keeping += [asyncio.create_task(_keep(command, event)) for event in some]
                await _unless(waiting, keeping, _all(some))
                if told.is_set():
                    return
            ready()
            await _unless(waiting, keeping, told.wait())
        finally:
            waiting.cancel()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)


@final
class Parent:
    """The process that keeps this one, seen from here."""

    def __init__(self, link: int) -> None:
        """Take over the descriptor that `--parent` names; processes begun here do not inherit it."""
        self._link = socket.socket(fileno=link)
        self._link.set_inheritable(False)
        self._link.settimeout(0)

    def tell_ready(self) -> None:
        """Say that this process serves."""
        with suppress(BrokenPipeError):  # the parent has gone, and `gone` says so
            self._link.send(_READY)

    async def gone(self) -> None:
        """Wait until the parent has ended, however it did."""
        await asyncio.get_running_loop().sock_recv(self._link, 1)


@final
class _Child:
    """A process, seen from its parent. The link between them closes with either, so neither outlives the other."""

    def __init__(self, command: Sequence[str]) -> None:
        self._ends = False
        self._link, theirs = socket.socketpair()
        self._link.settimeout(0)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                [*command, "--parent", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for the parent, which ends its children in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def heard(self) -> bool:
        """Wait for its word that it serves; False where it ends."""
        self._ends = not await asyncio.get_running_loop().sock_recv(self._link, 1)
        return not self._ends

    async def end(self) -> int:
        """End it in order, or else at once, and return its status."""
        if not self._ends:
            self._process.terminate()
        try:
            return await asyncio.to_thread(self._process.wait, DRAIN_SECONDS + _GRACE)
        except subprocess.TimeoutExpired:
            log.warning("process_killed", pid=self.pid)
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)
        finally:
            self._link.close()


async def _keep(command: Sequence[str], serving: asyncio.Event) -> None:
    time = asyncio.get_running_loop().time
    pause = _FIRST_PAUSE
    while True:
        begun = time()
        child = _Child(command)
        try:
            if await child.heard():
                serving.set()
                await child.heard()
        finally:
            status = await child.end()
        if not serving.is_set():
            raise StartError(f"a process of the service ended at its start, with status {status}; it said why above")
        pause = _FIRST_PAUSE if time() - begun >= _STEADY else pause
        log.warning("process_ended", pid=child.pid, status=status, again_in_seconds=pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _all(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _unless(
    told: asyncio.Task[bool], keeping: Sequence[asyncio.Task[None]], wanted: Coroutine[object, object, object]
) -> None:
    """Wait for what is wanted, or until told to end. Raises what one of the keepers raised."""
    hoped = asyncio.create_task(wanted)
    try:
        await asyncio.wait([told, hoped, *keeping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        hoped.cancel()
    for task in keeping:
        if task.done():
            task.result()


def this_program(*arguments: str) -> tuple[str, ...]:
    """Return the command that runs this program with the same interpreter, wherever it is called from."""
    return (sys.executable, "-P", "-m", "entrypoints.cli", *arguments)
