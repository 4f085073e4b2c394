import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from adapters.blob_store.memory import MemoryBlobStore
from adapters.job_queue.memory import MemoryJobQueue
from adapters.persistence.connection import SqlConnection
from adapters.persistence.database import Database
from adapters.persistence.job_repository import SqlJobRepository, SqlJobSweep
from adapters.persistence.reports import SqlReports
from adapters.persistence.transaction import SqlTransaction
from adapters.persistence.workspace_repository import SqlWorkspaceRepository
from adapters.system.clock import SystemClock
from adapters.system.id_generator import UuidV7Generator
from application.ports.cipher import DataKeyId, WrappedKey
from application.ports.errors import PortBusy, PortUnavailable
from application.ports.job_queue import JobKind, QueuedJob
from application.use_cases.erasure.erased_in_reports import ErasedInReports
from application.use_cases.erasure.ledger import Ledger
from application.use_cases.jobs.cancel_job import CancelJob
from application.use_cases.jobs.change_job import ChangeJob
from application.use_cases.jobs.files import job_file
from application.use_cases.jobs.get_job import GetJob
from application.use_cases.jobs.handlers import JobHandler, JobHandlers, JobStopped, ReportProgress
from application.use_cases.jobs.list_jobs import ListJobs
from application.use_cases.jobs.run_job import JOBS_AT_ONCE, PASSING, RunJob
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.jobs.sweep_jobs import KEPT_FOR, SweepJobs
from application.use_cases.jobs.watch_job import WatchJob
from domain.errors import FacepassError, InvalidValue, JobEnded, JobNotFound, NotFound, leaves
from domain.job import Job, JobFailure, JobId, JobProgress, JobStatus, JobWork
from domain.workspace import Workspace, WorkspaceId
from tests.job_handler import Handler
from tests.trail import KEYED_HASH, trail

IDS = UuidV7Generator()
CLOCK = SystemClock()
KIND = JobWork.BULK_ENROLMENT
NOBODY = JobId(UUID("01a1f9ba-6210-711f-a62a-9f40b20f2bb1"))


class Unit:
    """One unit of work: what shares a transaction."""

    def __init__(self, connection: SqlConnection, queue: MemoryJobQueue, blobs: MemoryBlobStore) -> None:
        audit = trail(connection)
        self.transaction = SqlTransaction(connection, audit)
        self.jobs = SqlJobRepository(connection)
        self.sweep = SqlJobSweep(connection)
        self.start = StartJob(jobs=self.jobs, queue=queue, audit=audit, ids=IDS, clock=CLOCK)
        erased = ErasedInReports(reports=SqlReports(connection), ledger=Ledger(blobs=blobs, keyed_hash=KEYED_HASH))
        self.change = ChangeJob(jobs=self.jobs, erased=erased, transaction=self.transaction)
        self.cancel = CancelJob(jobs=self.jobs, audit=audit, transaction=self.transaction, clock=CLOCK)
        self.show = GetJob(jobs=self.jobs)
        self.listed = ListJobs(jobs=self.jobs)
        self.sweep_jobs = SweepJobs(
            jobs=self.sweep, queue=queue, blobs=blobs, transaction=self.transaction, clock=CLOCK
        )


@dataclass(frozen=True, slots=True)
class Jobs:
    """The use cases of jobs over a real database, each call in a unit of work of its own."""

    database: Database
    workspace: WorkspaceId
    queue: MemoryJobQueue = field(default_factory=MemoryJobQueue)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    unexpected: list[BaseException] = field(default_factory=list)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Unit]:
        connection = SqlConnection(self.database.transactions)
        try:
            yield Unit(connection, self.queue, self.blobs)
        finally:
            await connection.aclose()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[ChangeJob]:
        async with self.unit() as unit:
            yield unit.change

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[GetJob]:
        async with self.unit() as unit:
            yield unit.show

    async def start(self, *, kind: JobWork = KIND, **values: Any) -> Job:  # noqa: ANN401 - a use case's values
        async with self.unit() as unit:
            job = await unit.start(
                workspace=self.workspace, kind=kind, **{"parameters": {"gallery": "g", "n": 3}, **values}
            )
            await unit.transaction.commit()
        return job

    async def get(self, job: Job) -> Job:
        async with self.unit() as unit:
            return await unit.show(workspace=self.workspace, job=job.id)

    async def cancel(self, job: Job) -> Job:
        async with self.unit() as unit:
            return await unit.cancel(workspace=self.workspace, job=job.id)

    async def claim(self, job: Job, *, lease: timedelta = timedelta(minutes=1)) -> Job | None:
        return await self.change(job, lambda now: now.claimed(datetime.now(UTC), lease=lease))

    async def change(self, job: Job, by: Callable[[Job], Job | None]) -> Job | None:
        async with self.unit() as unit:
            return await unit.change(workspace=self.workspace, job=job.id, by=by)

    async def swept(self) -> list[JobId]:
        """What the sweep would put on the queue."""
        async with self.unit() as unit:
            return [job for _, job in await unit.sweep.due(datetime.now(UTC), limit=100)]

    def runner(self, handler: JobHandler, *, kind: JobWork = KIND, **values: Any) -> RunJob:  # noqa: ANN401 - its fields
        return RunJob(
            **{
                "handlers": JobHandlers({kind: handler}),
                "scope": self.changing,
                "queue": self.queue,
                "clock": CLOCK,
                "unexpected": lambda _, error: self.unexpected.append(error),
                "first_wait": timedelta(0),
                **values,
            }
        )

    async def run(self, job: Job, handler: JobHandler, **values: Any) -> Job | None:  # noqa: ANN401 - a runner's fields
        return await self.runner(handler, **values)(workspace=self.workspace, job=job.id)

    async def execute(self, statement: str, **values: object) -> None:
        async with self.database.reads.connect() as connection:
            await connection.execute(text(statement), values)


@pytest.fixture
async def jobs(database: Database) -> Jobs:
    workspace = Workspace(id=WorkspaceId(IDS.new()), name="ours", created_at=datetime.now(UTC))
    connection = SqlConnection(database.transactions)
    await SqlWorkspaceRepository(connection).add(workspace)
    await connection.commit()
    return Jobs(database, workspace.id)


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await so():  # noqa: ASYNC110 - what is waited for happens in the database, which has no event
            await asyncio.sleep(0.02)


class TestRecord:
    async def test_a_job_comes_back_as_it_was_kept(self, jobs: Jobs) -> None:
        job = await jobs.start(total=7, time_limit=timedelta(minutes=3))
        assert await jobs.get(job) == job
        now = datetime.now(UTC)
        full = replace(
            job,
            status=JobStatus.FAILED,
            progress=JobProgress(done=2**40, total=2**41, stage="copying"),
            result={"items": [{"id": str(NOBODY), "ä": None}], "share": 0.5},
            attempts=3,
            losses=1,
            failures=(JobFailure(code="busy", detail="full", attempt=3, at=now),),
            run=4,
            cancel_requested=True,
            started_at=now,
            finished_at=now,
        )
        await jobs.change(job, lambda _: full)
        assert await jobs.get(job) == full

    async def test_a_job_that_was_not_committed_is_not_there(self, jobs: Jobs) -> None:
        async with jobs.unit() as unit:
            job = await unit.start(workspace=jobs.workspace, kind=KIND, parameters={})
        with pytest.raises(JobNotFound):
            await jobs.get(job)

    async def test_anothers_job_is_not_found(self, jobs: Jobs) -> None:
        job = await jobs.start()
        theirs = WorkspaceId(NOBODY)
        async with jobs.unit() as unit:
            for use_case in (unit.show, unit.cancel):
                with pytest.raises(JobNotFound):
                    await use_case(workspace=theirs, job=job.id)
            assert (await unit.listed(workspace=theirs, limit=10, after=None)).items == ()
        handler = Handler()
        with pytest.raises(JobNotFound):
            await jobs.runner(handler)(workspace=theirs, job=job.id)
        assert handler.seen == []

    async def test_pages_follow_each_other_and_heed_their_filters(self, jobs: Jobs) -> None:
        made = [await jobs.start(kind=kind) for kind in (KIND, JobWork.INDEX_MIGRATION, KIND, KIND)]
        await jobs.cancel(made[3])
        async with jobs.unit() as unit:
            listed = unit.listed
            first = await listed(workspace=jobs.workspace, limit=3, after=None)
            rest = await listed(workspace=jobs.workspace, limit=3, after=first.next_after)
            some = await listed(workspace=jobs.workspace, limit=9, after=None, status=JobStatus.QUEUED, kind=KIND)
        assert [job.id for job in (*first.items, *rest.items)] == [job.id for job in made]
        assert rest.next_after is None
        assert [job.id for job in some.items] == [made[0].id, made[2].id]

    async def test_of_many_who_claim_at_once_one_gets_it(self, jobs: Jobs) -> None:
        job = await jobs.start()
        claimed = await asyncio.gather(*(jobs.claim(job) for _ in range(8)))
        assert [one.run for one in claimed if one is not None] == [1]

    async def test_the_sweep_finds_what_waits_and_what_was_lost(self, jobs: Jobs) -> None:
        waits, lost, held, ended, later = [await jobs.start() for _ in range(4)] + [
            await jobs.start(delay=timedelta(hours=1))
        ]
        await jobs.claim(lost, lease=timedelta(0))
        await jobs.claim(held)
        await jobs.cancel(ended)
        assert set(await jobs.swept()) == {waits.id, lost.id}
        await jobs.change(later, lambda job: job.released(datetime.now(UTC)))
        assert set(await jobs.swept()) == {waits.id, lost.id, later.id}


class TestRun:
    async def test_a_job_that_succeeds_leaves_its_result_and_how_far_it_came(self, jobs: Jobs) -> None:
        async def work(job: Job, progress: ReportProgress) -> Mapping[str, object]:
            await progress(2, 3, "copying")
            await progress(3, 3, "checking")
            return {"done": job.parameters["n"]}

        job = await jobs.start(total=3)
        left = await jobs.run(job, Handler(work))
        assert left == await jobs.get(job)
        assert left is not None
        assert (left.status, left.result, left.attempts) == (JobStatus.SUCCEEDED, {"done": 3}, 1)
        assert left.progress == JobProgress(done=3, total=3, stage="checking")
        assert left.started_at is not None
        assert left.finished_at is not None
        assert left.created_at <= left.started_at <= left.finished_at

    async def test_a_job_that_is_delivered_twice_is_done_once(self, jobs: Jobs) -> None:
        job, handler = await jobs.start(), Handler()
        first = asyncio.create_task(jobs.run(job, handler))
        await handler.begun.wait()
        assert await jobs.run(job, handler) is None
        handler.release.set()
        assert (await first) is not None
        assert await jobs.run(job, handler) is None
        assert len(handler.seen) == 1

    async def test_a_job_of_a_kind_that_nobody_does_here_is_left_to_others(self, jobs: Jobs) -> None:
        job = await jobs.start()
        assert await jobs.run(job, Handler(), kind=JobWork.INDEX_MIGRATION) is None
        assert await jobs.get(job) == job

    async def test_a_job_that_is_not_due_is_not_run(self, jobs: Jobs) -> None:
        job = await jobs.start(delay=timedelta(hours=1))
        assert await jobs.run(job, Handler()) is None

    async def test_more_jobs_than_one_process_takes_wait(self, jobs: Jobs) -> None:
        handler = Handler()
        runner = jobs.runner(handler)
        made = [await jobs.start() for _ in range(JOBS_AT_ONCE + 1)]
        running = [asyncio.create_task(runner(workspace=jobs.workspace, job=job.id)) for job in made[:JOBS_AT_ONCE]]

        async def all_begun() -> bool:
            return len(handler.seen) == JOBS_AT_ONCE

        await until(all_begun)
        assert await runner(workspace=jobs.workspace, job=made[-1].id) is None
        assert await jobs.swept() == [made[-1].id]
        handler.release.set()
        await asyncio.gather(*running)
        assert await runner(workspace=jobs.workspace, job=made[-1].id) is not None


class TestFailure:
    @pytest.mark.parametrize(
        "error", [PortUnavailable("vector_index", "it cannot be reached"), PortBusy("face_embedder", "full")]
    )
    async def test_what_passes_is_tried_three_times_and_kept_with_its_context(
        self, jobs: Jobs, error: FacepassError
    ) -> None:
        async def work(_job: Job, progress: ReportProgress) -> Mapping[str, object]:
            await progress(1, 2, "copying")
            raise error

        job = await jobs.start()
        for attempt in (1, 2):
            left = await jobs.run(job, Handler(work))
            assert left is not None
            assert (left.status, left.attempts) == (JobStatus.QUEUED, attempt)
            # Not left to the sweep.
            assert jobs.queue.jobs == [QueuedJob(kind=JobKind.JOB, workspace=jobs.workspace, subject=job.id)]
        left = await jobs.run(job, Handler(work))
        assert left is not None
        assert (left.status, left.progress.stage) == (JobStatus.FAILED, "copying")
        assert [(one.code, one.detail, one.attempt) for one in left.failures] == [
            (error.code, error.message, attempt) for attempt in (1, 2, 3)
        ]
        assert await jobs.run(job, Handler(work)) is None

    async def test_a_failed_try_waits_before_the_next(self, jobs: Jobs) -> None:
        async def work(_job: Job, _progress: ReportProgress) -> Mapping[str, object]:
            raise PortUnavailable("vector_index", "it cannot be reached")

        job = await jobs.start()
        left = await jobs.run(job, Handler(work), first_wait=timedelta(days=1000))
        assert left is not None
        assert left.due_at > datetime.now(UTC)
        assert await jobs.swept() == []

    async def test_what_stays_wrong_fails_at_once(self, jobs: Jobs) -> None:
        async def work(_job: Job, _progress: ReportProgress) -> Mapping[str, object]:
            raise InvalidValue("no such thing", field="gallery")

        left = await jobs.run(await jobs.start(), Handler(work))
        assert left is not None
        assert (left.status, [one.code for one in left.failures]) == (JobStatus.FAILED, ["invalid_value"])
        assert jobs.queue.jobs == []

    async def test_a_mistake_of_ours_is_told_and_only_its_name_is_kept(self, jobs: Jobs) -> None:
        async def work(_job: Job, _progress: ReportProgress) -> Mapping[str, object]:
            async with asyncio.TaskGroup():
                raise ZeroDivisionError("of Ada Lovelace")

        left = await jobs.run(await jobs.start(), Handler(work))
        assert left is not None
        assert left.status is JobStatus.QUEUED
        assert [(one.code, one.detail) for one in left.failures] == [("internal_error", "ZeroDivisionError")]
        assert [type(error) for error in jobs.unexpected] == [ZeroDivisionError]

    async def test_a_run_over_its_time_is_ended_and_counts_as_a_try(self, jobs: Jobs) -> None:
        ended = asyncio.Event()

        async def work(_job: Job, _progress: ReportProgress) -> Mapping[str, object]:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        left = await jobs.run(await jobs.start(time_limit=timedelta(seconds=0.1)), Handler(work))
        assert ended.is_set()
        assert left is not None
        assert (left.status, left.attempts, left.failures[0].code) == (JobStatus.QUEUED, 1, "job_timed_out")

    def test_of_the_cores_errors_those_pass_that_are_about_a_moment(self) -> None:
        assert {leaf.code for leaf in leaves() if issubclass(leaf, PASSING)} == {
            "dependency_unavailable",
            "busy",
            "pack_unavailable",
        }
        assert not issubclass(NotFound, PASSING)


class TestCancel:
    async def test_one_that_waits_is_cancelled_at_once_and_never_run(self, jobs: Jobs) -> None:
        job = await jobs.start()
        cancelled = await jobs.cancel(job)
        assert (cancelled.status, await jobs.get(job)) == (JobStatus.CANCELLED, cancelled)
        assert await jobs.run(job, Handler()) is None
        with pytest.raises(JobEnded):
            await jobs.cancel(job)

    @pytest.mark.parametrize("grouped", [False, True], ids=["plain", "in-a-task-group"])
    async def test_one_that_runs_stops_when_it_says_how_far_it_is(self, jobs: Jobs, *, grouped: bool) -> None:
        async def endless(progress: ReportProgress) -> None:
            done = 0
            while True:
                done += 1
                await progress(done, None, "counting")
                await asyncio.sleep(0.01)

        async def work(_job: Job, progress: ReportProgress) -> Mapping[str, object]:
            if not grouped:
                await endless(progress)
            async with asyncio.TaskGroup() as group:
                group.create_task(endless(progress))
            return {}

        handler = Handler(work)
        job = await jobs.start()
        running = asyncio.create_task(jobs.run(job, handler))
        await handler.begun.wait()
        for _ in range(2):
            assert (await jobs.cancel(job)).cancel_requested
        left = await running
        assert left is not None
        assert (left.status, left.attempts, left.failures) == (JobStatus.CANCELLED, 0, ())
        assert left.progress.done > 0
        assert jobs.unexpected == []

    async def test_what_is_taken_for_one_items_error_does_not_swallow_it(self) -> None:
        assert not issubclass(JobStopped, FacepassError)


class TestLease:
    async def test_a_process_that_goes_gives_its_job_back_and_another_goes_on(self, jobs: Jobs) -> None:
        async def work(_job: Job, progress: ReportProgress) -> Mapping[str, object]:
            await progress(5, 9, "copying")
            going.begun.set()
            await asyncio.Event().wait()
            return {}

        going = Handler(work)
        job = await jobs.start()
        running = asyncio.create_task(jobs.run(job, going))
        await going.begun.wait()

        async def said() -> bool:
            return bool(going.seen)

        await until(said)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        left = await jobs.get(job)
        assert (left.status, left.attempts, left.losses) == (JobStatus.QUEUED, 0, 0)
        assert await jobs.swept() == [job.id]
        next_one = Handler()
        next_one.release.set()
        assert (await jobs.run(job, next_one)) is not None
        assert next_one.seen[0].progress == JobProgress(done=5, total=9, stage="copying")

    async def test_a_job_of_a_dead_worker_is_done_by_another_and_the_dead_changes_nothing(self, jobs: Jobs) -> None:
        job = await jobs.start()
        dead = await jobs.claim(job, lease=timedelta(0))
        assert dead is not None
        assert await jobs.swept() == [job.id]
        handler = Handler()
        running = asyncio.create_task(jobs.run(job, handler))
        await handler.begun.wait()
        now = datetime.now(UTC)
        assert await jobs.change(job, lambda held: held.succeeded(dead.run, now, result={"by": "the dead"})) is None
        handler.release.set()
        left = await running
        assert left is not None
        assert (left.status, left.result, left.losses) == (JobStatus.SUCCEEDED, {"seen": 1}, 1)
        assert [one.code for one in left.failures] == ["worker_lost"]

    async def test_a_long_run_keeps_its_lease_without_a_word_of_the_handler(self, jobs: Jobs) -> None:
        handler = Handler()
        job = await jobs.start()
        running = asyncio.create_task(jobs.run(job, handler, lease=timedelta(seconds=1)))
        await handler.begun.wait()
        first = (await jobs.get(job)).held_until
        assert first is not None

        async def outlived() -> bool:
            assert await jobs.swept() == []
            return datetime.now(UTC) > first + timedelta(seconds=0.5)

        await until(outlived)
        handler.release.set()
        assert (await running) is not None
        assert (await jobs.get(job)).status is JobStatus.SUCCEEDED

    async def test_a_handler_whose_job_was_taken_over_is_ended_and_writes_nothing(self, jobs: Jobs) -> None:
        handler = Handler()
        job = await jobs.start()
        running = asyncio.create_task(jobs.run(job, handler, lease=timedelta(seconds=0.6)))
        await handler.begun.wait()
        await jobs.execute("UPDATE jobs SET run = run + 1 WHERE id = :id", id=job.id)
        assert await running is None
        left = await jobs.get(job)
        assert (left.status, left.run, left.result) == (JobStatus.RUNNING, 2, None)

    @pytest.mark.parametrize(("failures", "goes_on"), [(2, True), (10**9, False)], ids=["for-a-moment", "for-good"])
    async def test_a_database_that_is_away_for_less_than_the_lease_stops_no_job(
        self, jobs: Jobs, failures: int, *, goes_on: bool
    ) -> None:
        left = failures
        renewed = asyncio.Event()
        away = False

        @asynccontextmanager
        async def flaky() -> AsyncIterator[ChangeJob]:
            nonlocal left
            if away and left > 0:
                left -= 1
                raise PortUnavailable("database", "it cannot be reached")
            async with jobs.changing() as change:
                yield change
            if away:
                renewed.set()

        handler = Handler()
        job = await jobs.start()
        running = asyncio.create_task(jobs.run(job, handler, scope=flaky, lease=timedelta(seconds=2)))
        await handler.begun.wait()
        away = True
        if goes_on:
            async with asyncio.timeout(30):
                await renewed.wait()
            handler.release.set()
            ended = await running
            assert ended is not None
            assert ended.status is JobStatus.SUCCEEDED
        else:
            assert await running is None
            assert (await jobs.get(job)).status is JobStatus.RUNNING


class TestSweep:
    @pytest.fixture
    def sweep(self, jobs: Jobs) -> Callable[[], Awaitable[int]]:
        async def swept() -> int:
            async with jobs.unit() as unit:
                return await unit.sweep_jobs()

        return swept

    async def test_what_waits_and_what_was_lost_goes_back_on_the_queue(
        self, jobs: Jobs, sweep: Callable[[], Awaitable[int]]
    ) -> None:
        waits, lost, held = [await jobs.start() for _ in range(3)]
        await jobs.claim(lost, lease=timedelta(0))
        await jobs.claim(held)
        assert await sweep() == await sweep() == 2
        assert {one.subject for one in jobs.queue.jobs} == {waits.id, lost.id}

    async def test_files_go_with_the_end_of_their_job_and_then_their_key(
        self, jobs: Jobs, sweep: Callable[[], Awaitable[int]]
    ) -> None:
        blobs = jobs.blobs
        made = []
        for _ in range(2):
            key = WrappedKey(id=DataKeyId(IDS.new()), workspace=jobs.workspace, wrapped=b"wrapped")
            job = await jobs.start(key=key)
            await blobs.put(job_file(jobs.workspace, job.id, 0), b"sealed")
            made.append(job)
            async with jobs.unit() as unit:
                assert await unit.jobs.key_of(jobs.workspace, job.id) == key
        ended, waits = made
        await jobs.cancel(ended)
        await sweep()
        assert [key async for key in blobs.keys("jobs/")] == [job_file(jobs.workspace, waits.id, 0)]
        async with jobs.unit() as unit:
            assert await unit.jobs.key_of(jobs.workspace, ended.id) is None
            assert await unit.jobs.key_of(jobs.workspace, waits.id) is not None

    async def test_ended_jobs_go_after_their_time_and_others_stay(
        self, jobs: Jobs, sweep: Callable[[], Awaitable[int]]
    ) -> None:
        old, young, waits = [await jobs.start() for _ in range(3)]
        await jobs.cancel(old)
        await jobs.cancel(young)
        long_ago = datetime.now(UTC) - KEPT_FOR
        await jobs.execute("UPDATE jobs SET finished_at = :at WHERE id = :id", at=long_ago, id=old.id)
        await jobs.execute("UPDATE jobs SET created_at = :at WHERE id = :id", at=long_ago, id=waits.id)
        await sweep()
        with pytest.raises(JobNotFound):
            await jobs.get(old)
        assert (await jobs.get(young)).ended
        assert not (await jobs.get(waits)).ended


class TestWatch:
    async def test_every_change_is_told_once_until_the_end(self, jobs: Jobs) -> None:
        job = await jobs.start()
        watch = WatchJob(scope=jobs.showing, look_every=0.01)
        told = watch(workspace=jobs.workspace, job=job.id)
        assert (await anext(told)) == job
        claimed = await jobs.claim(job)
        assert claimed is not None
        running = await anext(told)
        assert running is not None
        assert running.status is JobStatus.RUNNING
        # The lease alone is no news; what comes next is the end.
        now = datetime.now(UTC)
        await jobs.change(
            job, lambda held: held.renewed(1, held_until=now + timedelta(hours=1), progress=held.progress)
        )
        await jobs.change(job, lambda held: held.succeeded(1, now, result={}))
        assert [one.status async for one in told if one is not None] == [JobStatus.SUCCEEDED]

    async def test_silence_is_broken_and_a_connection_ends_by_itself(self, jobs: Jobs) -> None:
        job = await jobs.start()
        watch = WatchJob(scope=jobs.showing, look_every=0.01, silent_for=0.05, watched_for=0.3)
        told = [one async for one in watch(workspace=jobs.workspace, job=job.id)]
        assert told[0] == job
        assert len(told) > 1
        assert set(told[1:]) == {None}

    async def test_a_job_that_is_not_there_cannot_be_watched(self, jobs: Jobs) -> None:
        watch = WatchJob(scope=jobs.showing)
        with pytest.raises(JobNotFound):
            await anext(watch(workspace=jobs.workspace, job=NOBODY))
