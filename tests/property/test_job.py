from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.errors import JobEnded
from domain.job import (
    ENDED,
    FAILURES_KEPT,
    LONGEST_WAIT,
    LOSSES,
    Job,
    JobId,
    JobProgress,
    JobStatus,
    JobWork,
    wait_before_retry,
)
from domain.workspace import WorkspaceId

START = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)
runs = st.integers(0, 5)
waits = st.one_of(st.none(), st.timedeltas(timedelta(0), timedelta(minutes=1)))


def a_job(**values: object) -> Job:
    made = Job(
        id=JobId(UUID(int=1)),
        workspace=WorkspaceId(UUID(int=2)),
        kind=JobWork.BULK_ENROLMENT,
        parameters={},
        created_at=START,
        due_at=START,
    )
    return replace(made, **values)  # type: ignore[arg-type]  # fields by name


def running(**values: object) -> Job:
    claimed = a_job(**values).claimed(START, lease=LEASE)
    assert claimed is not None
    return claimed


class JobLife(RuleBasedStateMachine):
    """A job, its present holder, and holders of the past who still believe that it is theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.job = a_job()
        self.now = START

    def becomes(self, after: Job | None, *, of: int) -> None:
        """Whoever does not hold it changes nothing."""
        holds = self.job.status is JobStatus.RUNNING and self.job.run == of
        assert (after is not None) == holds
        if after is not None:
            self.moved(after)

    def moved(self, after: Job) -> None:
        before = self.job
        assert not before.ended
        assert after.run - before.run in {0, 1}
        assert after.attempts - before.attempts in {0, 1}
        assert after.losses - before.losses in {0, 1}
        assert after.cancel_requested >= before.cancel_requested
        assert (after.id, after.created_at, after.parameters) == (before.id, before.created_at, before.parameters)
        assert before.started_at in {None, after.started_at}
        self.job = after

    @rule(seconds=st.integers(1, 60))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def somebody_claims(self) -> None:
        before, after = self.job, self.job.claimed(self.now, lease=LEASE)
        held = before.status is JobStatus.RUNNING and before.held_until is not None and before.held_until > self.now
        waits = before.status is JobStatus.QUEUED and before.due_at > self.now
        assert (after is None) == (before.ended or held or waits)
        if after is not None:
            self.moved(after)
            assert after.ended or (after.run, after.held_until) == (before.run + 1, self.now + LEASE)

    @rule(run=runs, done=st.integers(0, 9), result=st.sampled_from([None, {"n": 0}]))
    def somebody_renews(self, run: int, done: int, result: dict[str, object] | None) -> None:
        progress = JobProgress(done=done, total=9, stage="copying")
        after = self.job.renewed(run, held_until=self.now + LEASE, progress=progress, result=result)
        assert after is None or after.result == (result or self.job.result)
        self.becomes(after, of=run)

    @rule(run=runs)
    def somebody_succeeds(self, run: int) -> None:
        self.becomes(self.job.succeeded(run, self.now, result={"n": 1}), of=run)

    @rule(run=runs, wait=waits)
    def somebody_fails(self, run: int, wait: timedelta | None) -> None:
        self.becomes(self.job.failed(run, self.now, code="busy", detail="full", wait=wait), of=run)

    @rule(run=runs)
    def somebody_stops(self, run: int) -> None:
        self.becomes(self.job.stopped(run, self.now), of=run)

    @rule(run=runs)
    def somebody_gives_it_back(self, run: int) -> None:
        self.becomes(self.job.given_back(run, self.now), of=run)

    @precondition(lambda self: not self.job.ended)
    @rule()
    def the_client_cancels(self) -> None:
        self.moved(self.job.cancelled(self.now))

    @precondition(lambda self: self.job.ended)
    @rule()
    def the_client_cancels_too_late(self) -> None:
        with pytest.raises(JobEnded):
            self.job.cancelled(self.now)

    @invariant()
    def it_is_held_while_it_runs_and_only_then(self) -> None:
        assert (self.job.held_until is not None) == (self.job.status is JobStatus.RUNNING)

    @invariant()
    def it_has_an_end_once_it_has_ended_and_only_then(self) -> None:
        assert (self.job.finished_at is not None) == self.job.ended == (self.job.status in ENDED)

    @invariant()
    def it_has_a_result_where_it_succeeded(self) -> None:
        assert self.job.result is not None or self.job.status is not JobStatus.SUCCEEDED

    @invariant()
    def it_never_waits_once_it_is_to_be_cancelled(self) -> None:
        assert not (self.job.cancel_requested and self.job.status is JobStatus.QUEUED)

    @invariant()
    def what_is_used_up_ends_it(self) -> None:
        assert self.job.ended or (self.job.attempts < self.job.tries and self.job.losses < LOSSES)

    @invariant()
    def a_failed_job_says_why(self) -> None:
        assert self.job.status is not JobStatus.FAILED or self.job.failures
        assert len(self.job.failures) <= FAILURES_KEPT


TestJobLife = JobLife.TestCase


def test_the_third_failure_is_the_last() -> None:
    job = a_job()
    for attempt in (1, 2, 3):
        claimed = job.claimed(job.due_at, lease=LEASE)
        assert claimed is not None
        failed = claimed.failed(claimed.run, START, code="busy", detail="full", wait=timedelta(seconds=attempt))
        assert failed is not None
        job = failed
    assert job.status is JobStatus.FAILED
    assert [(failure.code, failure.attempt) for failure in job.failures] == [("busy", 1), ("busy", 2), ("busy", 3)]


def test_a_failure_that_no_repetition_helps_is_the_last() -> None:
    failed = running().failed(1, START, code="gallery_not_found", detail="no such gallery")
    assert failed is not None
    assert (failed.status, failed.attempts) == (JobStatus.FAILED, 1)


def test_being_given_back_is_no_try_and_no_loss() -> None:
    given_back = running().given_back(1, START)
    assert given_back is not None
    assert (given_back.status, given_back.due_at) == (JobStatus.QUEUED, START)
    assert (given_back.attempts, given_back.losses, given_back.failures) == (0, 0, ())


def test_a_lost_worker_is_no_try_but_a_job_that_brings_down_all_of_them_fails() -> None:
    job, now = running(), START
    for lost in range(1, LOSSES + 1):
        now += LEASE
        claimed = job.claimed(now, lease=LEASE)
        assert claimed is not None
        job = claimed
        assert (job.losses, job.attempts) == (lost, 0)
    assert job.status is JobStatus.FAILED
    assert {failure.code for failure in job.failures} == {"worker_lost"}


@pytest.mark.parametrize("end", ["failed", "given_back", "lost", "stopped"])
def test_a_job_that_is_to_be_cancelled_is_not_run_again(end: str) -> None:
    job = running().cancelled(START)
    assert (job.status, job.cancel_requested) == (JobStatus.RUNNING, True)
    ended = {
        "failed": job.failed(1, START, code="busy", detail="full", wait=timedelta(0)),
        "given_back": job.given_back(1, START),
        "lost": job.claimed(START + LEASE, lease=LEASE),
        "stopped": job.stopped(1, START),
    }[end]
    assert ended is not None
    assert ended.status is JobStatus.CANCELLED


def test_a_job_that_is_done_before_it_hears_of_its_cancellation_has_succeeded() -> None:
    done = running().cancelled(START).succeeded(1, START, result={})
    assert done is not None
    assert done.status is JobStatus.SUCCEEDED


def test_one_that_waits_for_its_time_can_be_released() -> None:
    later = a_job(due_at=START + timedelta(hours=1))
    assert later.claimed(START, lease=LEASE) is None
    assert later.released(START).claimed(START, lease=LEASE) is not None
    assert running().released(START) == running()


@given(failures=st.integers(1, 10_000), chance=st.floats(0.0, 1.0))
def test_waits_lie_between_nothing_and_the_longest(failures: int, chance: float) -> None:
    assert timedelta(0) <= wait_before_retry(failures, chance=chance) <= LONGEST_WAIT


def test_waits_double() -> None:
    waits = [
        wait_before_retry(failures, chance=1.0, first=timedelta(seconds=1)).total_seconds() for failures in (1, 2, 3, 4)
    ]
    assert waits == [1.0, 2.0, 4.0, 8.0]
