"""Jobs carried by Redis to any number of workers, on arq."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from functools import partial
from random import uniform
from socket import gethostname
from time import time
from typing import Any, Final, TypeVar, final
from uuid import UUID, uuid4

import structlog
from arq import ArqRedis, Retry, Worker, cron, func
from arq.constants import in_progress_key_prefix, job_key_prefix
from arq.cron import CronJob
from arq.jobs import serialize_job
from arq.typing import WorkerCoroutine
from redis.asyncio.retry import Retry as ClientRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisAway

from adapters.job_queue.regular import attempt, is_cancelled
from adapters.job_queue.retries import Retries
from adapters.redis.errors import translated
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.job_queue import JobKind, JobQueue, QueuedJob, Regular, SignsOfLife
from application.ports.ping import Ping
from domain.errors import PortError
from domain.workspace import WorkspaceId

PORT: Final = "job_queue"

POLL: Final = 0.05
"""Seconds between two looks at the queue: what a job waits at most where a worker is free. As many jobs as may run
at once begin at each look."""

HEALTH: Final = 5.0
"""Seconds between two signs of life."""

_PATIENCE: Final = 1.5
"""Seconds that `put`, `waiting` and `ping` wait."""

_WORKER_PATIENCE: Final = 5.0
"""Seconds that a worker waits for one answer before it takes Redis for gone."""

_KEEP_COUNT: Final = 86_400
"""Seconds for which the failures of a job are remembered."""

_READ_AT_ONCE: Final = 1_000
"""Due jobs that one look reads. Those that run elsewhere are among them, so it bounds how many run at a time."""

_UNLIMITED: Final = 1_000_000_000
"""Tries by arq's own count, which takes an interrupted run for one."""

_GRACE: Final = 60.0
"""Seconds past a job's limit after which arq would end it, not knowing that it may be tried again."""

_FUNCTION: Final = "do"
_MINUTE: Final = 60
_HOUR: Final = 3600
_RETRIES: Final = Retries()
_T = TypeVar("_T")

# A job waits in arq's own form: a key of its own, and its time in the queue. When a run ends, arq removes both, so what
# is asked for while it runs is noted beside them and put back after that.
# EVALSHA with ten words is the longest command that Redis reads of who has not signed in, and so refuses plainly.
_PUT: Final = """
local queue, job, running, again = unpack(KEYS)
local id, due, payload = unpack(ARGV)
if redis.call('EXISTS', running) == 1 then
    local noted = redis.call('GET', again)
    if not noted or tonumber(due) < tonumber(noted) then
        redis.call('SET', again, due, 'PXAT', string.format('%.0f', due + 86400000))
    end
else
    redis.call('SET', job, payload)
    redis.call('ZADD', queue, 'LT', due, id)
end
"""

_PUT_AGAIN: Final = """
local queue, job, again = unpack(KEYS)
local id, payload = unpack(ARGV)
local due = redis.call('GETDEL', again)
if due then
    redis.call('SET', job, payload)
    redis.call('ZADD', queue, 'LT', due, id)
end
"""

# Where Redis has lost who runs a job, what was asked for since lies in the queue as if it did not run, and the end of
# the run would remove it.
_KEEP: Final = """
local queue, running, again = unpack(KEYS)
local id, lease = unpack(ARGV)
if redis.call('EXISTS', running) == 1 then return end
local due = redis.call('ZSCORE', queue, id)
if due then
    redis.call('SET', again, due, 'PXAT', string.format('%.0f', due + 86400000))
end
redis.call('SET', running, '1', 'PX', lease)
"""

_HOLD: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_LET_GO: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

_log = structlog.get_logger(__name__)


@final
class ArqJobQueue(JobQueue, SignsOfLife, Ping):
    """arq's queue, with what its own counting leaves open added beside it.

    A job has one place in the queue, named after it: asked for again it moves forward, asked for while it runs it is
    noted and put back when the run ends. Should a worker die in the instant between, that note is lost until the job
    is asked for again, which is what sweeps do.

    Who runs a job holds it for `lease` seconds and renews that while it works. A worker that was killed loses its
    jobs after `lease` seconds; one that was stopped gives them back at once. A worker that cannot reach Redis for
    some seconds stops what it runs, before anybody else may begin it, and goes on when Redis is back.

    Regular work is arq's cron in a queue of its own, so that it waits behind no job. Its intervals are those of a
    clock's face, rounded up to a divisor of a minute, an hour or a day (45 s becomes a minute, 50 minutes an hour),
    at least a second and at most a day, in UTC.

    Needs Redis 6.2 or later. arq keeps all jobs of a Redis database under `arq:`; queues of other names do not meet.
    """

    def __init__(
        self,
        asking: ArqRedis,
        working: ArqRedis,
        *,
        queue: str = "facepass",
        worker: str | None = None,
        concurrency: int = 4,
        limit: float = 3600.0,
        lease: float = 30.0,
        retries: Retries = _RETRIES,
    ) -> None:
        """Take two clients of one Redis, as `open_arq_job_queue` makes them.

        Args:
            asking: fails fast, for who puts.
            working: waits out what passes, for who runs.
            queue: its name; installations that share a Redis need two.
            worker: the name under which `run` gives signs of life; by default the host's.
            concurrency: jobs that one `run` does at once.
            limit: seconds that one run of a job may take; past them it has failed.
            lease: seconds after which the jobs of a worker that died come again.
            retries: what happens to a job that fails.
        """
        self._asking = asking
        self._working = working
        self._queue = queue
        self._health_key = f"{queue}:health:{worker or gethostname()}"
        self._concurrency = concurrency
        self._limit = limit
        self._lease = lease
        self._retries = retries
        self._put = asking.register_script(_PUT)
        self._again = working.register_script(_PUT_AGAIN)
        self._keep = working.register_script(_KEEP)
        self._hold = working.register_script(_HOLD)
        self._let_go = working.register_script(_LET_GO)

    @property
    def name(self) -> str:
        return PORT

    async def put(self, job: QueuedJob, *, delay: float = 0.0) -> None:
        identity = self._identity(job)
        keys = [
            self._queue,
            job_key_prefix + identity,
            in_progress_key_prefix + identity,
            _again(identity),
        ]
        due = (time() + delay) * 1000
        async with _answered():
            await self._put(keys=keys, args=[identity, due, _payload()])

    async def run(self, handle: Callable[[QueuedJob], Awaitable[None]], *, regular: Sequence[Regular] = ()) -> None:
        """As the port says. Raises `PortRejected` where Redis refuses the worker: waiting would not help."""
        makers = [partial(self._job_worker, handle)]
        if regular:
            makers.append(partial(self._regular_worker, regular))
        running = [asyncio.create_task(self._keep_working(make)) for make in makers]
        try:
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()
        finally:
            for task in running:  # once: a second time would end their giving back
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def waiting(self) -> int:
        async with _answered():
            return int(await self._asking.zcard(self._queue))

    async def ping(self) -> None:
        async with _answered():
            await self._asking.ping()

    async def last_seen(self) -> float | None:
        """Return how many seconds ago the worker gave a sign of life, None where it did not within `HEALTH` + 1.

        Raises `PortUnavailable`.
        """
        async with _answered():
            left = int(await self._asking.pttl(self._health_key))
        return max(0.0, HEALTH + 1.0 - left / 1000) if left > 0 else None

    def _job_worker(self, handle: Callable[[QueuedJob], Awaitable[None]]) -> "_Worker":
        return _Worker(
            functions=[func(_arqs(partial(self._do, handle)), name=_FUNCTION)],
            queue_name=self._queue,
            redis_pool=self._working,
            max_jobs=self._concurrency,
            job_timeout=self._limit + _GRACE,
            health_check_key=self._health_key,
            on_job_end=self._keep_what_came,
            after_job_end=self._put_again,
            lease=self._lease,
        )

    def _regular_worker(self, regular: Sequence[Regular]) -> "_Worker":
        queue = f"{self._queue}:regular"
        return _Worker(
            cron_jobs=[
                _cron(_arqs(partial(self._do_regular, piece)), f"{queue}:{piece.name}", piece.every)
                for piece in regular
            ],
            queue_name=queue,
            redis_pool=self._working,
            job_timeout=self._limit,
            # One more than there are, for the beginning that finds the work still running and goes.
            max_jobs=len(regular) + 1,
            health_check_key=f"{self._health_key}:regular",
            lease=self._lease,
        )

    async def _keep_working(self, make: Callable[[], "_Worker"]) -> None:
        while not is_cancelled():
            try:
                with translated(PORT):
                    await make().work()
            except (PortUnavailable, PortBusy) as error:
                _log.warning("job_queue_away", reason=error.message)
            await self._comes_back()
            _log.info("job_queue_back")

    async def _comes_back(self) -> None:
        while True:
            await asyncio.sleep(uniform(0.2, 1.0))  # noqa: S311 - so that workers do not come all at once
            with suppress(PortUnavailable):
                await self.ping()
                return

    async def _do(self, handle: Callable[[QueuedJob], Awaitable[None]], identity: str) -> None:
        job = _job(identity)
        renewing = asyncio.create_task(self._renew(in_progress_key_prefix + identity, "1"))
        try:
            async with asyncio.timeout(self._limit):
                await handle(job)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            # The handler gave up something of its own; nobody asked this worker to stop.
            await self._failed(job, identity, error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the others' jobs go on
            await self._failed(job, identity, error)
        else:
            await self._bookkeeping(self._working.delete(_failures(identity)))
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _failed(self, job: QueuedJob, identity: str, error: BaseException) -> None:
        failures = await self._bookkeeping(self._count_failure(identity))
        pause = self._retries.pause(job, error, failures=failures)
        if pause is not None:
            raise Retry(defer=pause) from None
        await self._bookkeeping(self._working.delete(_failures(identity)))

    async def _count_failure(self, identity: str) -> int:
        async with self._working.pipeline(transaction=True) as both:
            both.incr(_failures(identity))
            both.expire(_failures(identity), _KEEP_COUNT)
            failures, _ = await both.execute()
        return int(failures)

    async def _bookkeeping(self, asked: Awaitable[_T]) -> _T:
        """Let a job whose end could not be noted come again, rather than be taken for done."""
        try:
            with translated(PORT):
                return await asked
        except PortError:
            raise Retry(defer=1.0) from None

    async def _keep_what_came(self, ctx: dict[str, Any]) -> None:
        identity: str = ctx["job_id"]
        keys = [self._queue, in_progress_key_prefix + identity, _again(identity)]
        await self._keep(keys=keys, args=[identity, round(self._lease * 1000)])

    async def _put_again(self, ctx: dict[str, Any]) -> None:
        identity: str = ctx["job_id"]
        keys = [self._queue, job_key_prefix + identity, _again(identity)]
        await self._again(keys=keys, args=[identity, _payload()])

    async def _do_regular(self, piece: Regular, _: str) -> None:
        """Do it, unless an earlier beginning of it still goes on somewhere: that is not arq's to know."""
        key, token = f"{self._queue}:regular:{piece.name}:held", uuid4().hex
        mine = False
        with suppress(PortError), translated(PORT):  # where Redis is away the worker itself finds out
            mine = bool(await self._working.set(key, token, nx=True, px=round(self._lease * 1000)))
        if not mine:
            return
        renewing = asyncio.create_task(self._renew(key, token))
        try:
            await attempt(piece)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with suppress(PortError), translated(PORT):
                await self._let_go(keys=[key], args=[token])

    async def _renew(self, key: str, token: str) -> None:
        """Hold what this worker has begun; where Redis is away the worker itself finds out, and stops."""
        while not is_cancelled():  # which the client may have lost, see `_Worker.work`
            await asyncio.sleep(self._lease / 3)
            with suppress(PortError), translated(PORT):
                await self._hold(keys=[key], args=[token, round(self._lease * 1000)])

    def _identity(self, job: QueuedJob) -> str:
        return f"{self._queue}:{job.kind.value}:{job.workspace}:{job.subject}"


class _Worker(Worker):
    """arq's worker as a coroutine among others, which gives everything back when it is cancelled."""

    def __init__(self, *, lease: float, **options: Any) -> None:  # noqa: ANN401 - arq's own, passed on
        super().__init__(
            **options,
            handle_signals=False,
            on_job_start=self._refuse_late,
            keep_result=0,
            log_results=False,
            poll_delay=POLL,
            queue_read_limit=_READ_AT_ONCE,
            max_tries=_UNLIMITED,
            health_check_interval=HEALTH,
            job_serializer=_to_json,
            job_deserializer=json.loads,
            timezone=UTC,
        )
        self.in_progress_timeout_s = lease
        self._picking = asyncio.Lock()

    async def work(self) -> None:
        """Work until cancelled, or until Redis is away."""
        main = asyncio.create_task(self.main())
        try:
            await asyncio.wait({main})
            main.result()
        finally:
            self.allow_pick_jobs = False
            # Again and again: before Python 3.12 `wait_for`, in which the client sends, can lose a cancellation.
            while not main.done():
                async with self._picking:  # a job that is marked and not begun would be held by nobody
                    main.cancel()
                await asyncio.wait({main}, timeout=POLL)
            await asyncio.gather(main, return_exceptions=True)
            await self._give_back()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        # arq takes what is marked for running, and Redis may have lost the marks.
        begun = {identity.encode() for identity, task in self.tasks.items() if not task.done()}
        async with self._picking:
            if self.allow_pick_jobs:
                await super().start_jobs([identity for identity in job_ids if identity not in begun])

    async def _refuse_late(self, ctx: dict[Any, Any]) -> None:
        """End a job that lost its cancellation on the way to its handler."""
        if not self.allow_pick_jobs:
            await self.pool.delete(in_progress_key_prefix + ctx["job_id"])
            raise asyncio.CancelledError

    async def _give_back(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        # What had begun gave itself back; what was picked and had not is still marked.
        marked = [in_progress_key_prefix + identity for identity, task in self.tasks.items() if task.cancelled()]
        if marked:
            # Whoever cancels a second time goes on, and so does this.
            await asyncio.shield(self._unmark(marked))

    async def _unmark(self, keys: Sequence[str]) -> None:
        with suppress(PortError), translated(PORT):
            await self.pool.delete(*keys)


@asynccontextmanager
async def open_arq_job_queue(
    url: str,
    *,
    queue: str = "facepass",
    worker: str | None = None,
    concurrency: int = 4,
    limit: float = 3600.0,
    lease: float = 30.0,
    retries: Retries = _RETRIES,
) -> AsyncIterator[ArqJobQueue]:
    """Open the queue at `redis://`, `rediss://` (TLS) or `unix://`, user and password in the address.

    Nothing is asked of Redis yet. The arguments are those of `ArqJobQueue`.
    """
    asking = ArqRedis.from_url(
        url,
        retry=ClientRetry(NoBackoff(), 1, (RedisAway,)),  # a connection that lay idle may be closed
    )
    working = ArqRedis.from_url(
        url,
        socket_connect_timeout=_WORKER_PATIENCE,
        socket_timeout=_WORKER_PATIENCE,
        retry=ClientRetry(ExponentialBackoff(cap=0.5, base=0.1), 3, (RedisAway,)),
    )
    working.job_serializer = _to_json
    try:
        yield ArqJobQueue(
            asking,
            working,
            queue=queue,
            worker=worker,
            concurrency=concurrency,
            limit=limit,
            lease=lease,
            retries=retries,
        )
    finally:
        await asking.aclose()
        await working.aclose()


@asynccontextmanager
async def _answered() -> AsyncIterator[None]:
    with translated(PORT):
        async with asyncio.timeout(_PATIENCE):
            yield


def _arqs(do: Callable[[str], Awaitable[None]]) -> WorkerCoroutine:
    """Return what arq calls, doing what takes the id of a job in the queue."""

    async def run(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ANN401 - arq's signature
        await do(ctx["job_id"])

    return run


def _cron(do: WorkerCoroutine, name: str, every: float) -> CronJob:
    hour: set[int] | None = None
    minute: set[int] | None = None
    second = {0}
    if every <= _MINUTE:
        second = _marks(every, 60)
    elif every <= _HOUR:
        minute = _marks(every / _MINUTE, 60)
    else:
        hour, minute = _marks(every / _HOUR, 24), {0}
    return cron(do, name=name, hour=hour, minute=minute, second=second, max_tries=None)


def _marks(every: float, whole: int) -> set[int]:
    """Return where a hand that goes round in `whole` steps stands every so many of them, or more rarely."""
    step = next((step for step in range(1, whole) if whole % step == 0 and step >= every), whole)
    return set(range(0, whole, step))


def _job(identity: str) -> QueuedJob:
    _, kind, workspace, subject = identity.rsplit(":", 3)
    return QueuedJob(kind=JobKind(kind), workspace=WorkspaceId(UUID(workspace)), subject=UUID(subject))


def _again(identity: str) -> str:
    return f"{identity}:again"


def _failures(identity: str) -> str:
    return f"{identity}:failures"


def _payload() -> bytes:
    return serialize_job(_FUNCTION, (), {}, None, round(time() * 1000), serializer=_to_json)


def _to_json(value: dict[str, Any]) -> bytes:
    # arq's own form is pickle, which lets whoever can write to Redis run code here. What is no JSON are exceptions
    # of jobs that it cannot read, in results that nobody keeps.
    return json.dumps(value, default=str).encode()
