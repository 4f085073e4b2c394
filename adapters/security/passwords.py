import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, TypeVar, final

from argon2 import PasswordHasher as Argon2
from argon2.exceptions import InvalidHashError, VerificationError

from application.ports.errors import PortBusy
from application.ports.passwords import CommonPasswords, PasswordHasher

T = TypeVar("T")

MEMORY_KIB: Final = 47_104
PASSES: Final = 1
LANES: Final = 1

_PORT: Final = "password_hasher"


@final
class Argon2PasswordHasher(PasswordHasher):
    """Argon2id (RFC 9106) with 46 MiB, one pass, one lane: the first of OWASP's equal choices (Password Storage).

    The one of RFC 9106 for little memory (64 MiB, three passes, four lanes) took 0.37 s of processor time on two busy
    cores, four lanes at once; this one 0.08 to 0.11 s of one core. A login must not stop verifications: hence few
    threads of its own, which also bounds the memory, and a short queue.
    """

    def __init__(self, *, threads: int = 1, queue_limit: int = 16) -> None:
        """Start nothing yet.

        Args:
            threads: hashes made at once; each takes 46 MiB and a core.
            queue_limit: those that wait at most; past it the answer is `PortBusy`.
        """
        self._argon2 = Argon2(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._most = threads + queue_limit
        self._in_flight = 0
        self._nobodys: str | None = None

    async def hashed(self, password: str) -> str:
        return await self._run(lambda: self._argon2.hash(password))

    async def verified(self, password: str, password_hash: str | None) -> bool:
        return await self._run(lambda: self._verified_now(password, password_hash))

    def outdated(self, password_hash: str) -> bool:
        try:
            return self._argon2.check_needs_rehash(password_hash)
        except InvalidHashError:
            return True

    async def prepare(self) -> None:
        """Make the hash that stands in for nobody's, so that the first unknown address costs no more than a known."""
        await self._run(self._stand_in)

    async def aclose(self) -> None:
        """Wait for what runs, and end the threads."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def _verified_now(self, password: str, password_hash: str | None) -> bool:
        try:
            self._argon2.verify(password_hash or self._stand_in(), password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    def _stand_in(self) -> str:
        if self._nobodys is None:
            self._nobodys = self._argon2.hash("nobody's")
        return self._nobodys

    async def _run(self, work: Callable[[], T]) -> T:
        if self._in_flight >= self._most:
            raise PortBusy(_PORT, "too many passwords wait to be hashed", retry_after=2.0)
        self._in_flight += 1
        # Not `finally`: a call that is cancelled leaves its work running, and that counts until it ends.
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._ended)
        return await asyncio.shield(future)

    def _ended(self, future: "asyncio.Future[T]") -> None:
        self._in_flight -= 1
        if not future.cancelled():
            future.exception()  # seen: nobody may wait for it any more


@final
class ZxcvbnCommonPasswords(CommonPasswords):
    """The 30,000 commonest of leaked passwords, from zxcvbn's list, read when the first password is set.

    So is one of them with up to six figures or signs behind it, or twice over: that is what is tried next.
    """

    def contains(self, password: str) -> bool:
        plain = password.casefold()
        half = len(plain) // 2
        tried = {plain, *(plain[:-end] for end in range(1, 7) if not any(map(str.isalpha, plain[-end:])))}
        if plain[:half] == plain[half:]:
            tried.add(plain[:half])
        return not _commonest().isdisjoint(tried)


@cache
def _commonest() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 - a tenth of a second, for whoever sets one

    return frozenset(FREQUENCY_LISTS["passwords"])
