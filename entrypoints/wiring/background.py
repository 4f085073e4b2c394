"""What is done beside answering: jobs, sweeps, upkeep."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from dishka import AsyncContainer, Scope

from application.ports.job_queue import JobKind, JobQueue, QueuedJob, Regular
from application.ports.upkeep import Upkeep
from application.use_cases.accounts.purge_accounts import PurgeAccounts
from application.use_cases.audit.origin import SYSTEM, set_origin
from application.use_cases.erasure.erase_due import EraseDue
from application.use_cases.erasure.file_erasures import FileErasures
from application.use_cases.erasure.ledger_gate import LedgerGate
from application.use_cases.erasure.refile_erasures import RefileErasures
from application.use_cases.jobs.run_job import RunJob
from application.use_cases.references.reconcile import Reconcile
from application.use_cases.upkeep.repair import Repair
from domain.enrolment import ReferenceId
from domain.errors import FacepassError
from domain.job import Job, JobId, JobStatus
from entrypoints.settings import Settings
from entrypoints.wiring.database import behind
from entrypoints.wiring.queues import IN_PROCESS

log = structlog.get_logger("facepass.background")


ERASE_EVERY = 120.0
"""Seconds within which somebody who is due is erased; they are not compared before that already."""

FILE_EVERY = 5.0
"""Seconds: erasures that the ledger has not are few, and only from when the blob store was away."""

BEGIN_AGAIN = 2.0
"""Seconds before background work that ended begins again."""

DAILY = 86_400.0
"""Seconds between two looks at the whole ledger of erasures, all of whose names are listed: a blob store that loses a
part of what it was given is rare."""

SELDOM = 600.0
"""Seconds between two looks for what nobody can use any more: nothing waits for it."""

LONGEST_RECONCILIATION = 300.0
"""Seconds for one reference: every backend that it waits for has given up long before."""


@asynccontextmanager
async def background(container: AsyncContainer) -> AsyncIterator[None]:
    """Work beside the block, where the queue is the process's own; else that is the workers' part."""
    if (await container.get(Settings)).job_queue.backend != IN_PROCESS:
        yield
        return
    working = asyncio.create_task(_work_on(container))
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _work_on(container: AsyncContainer) -> None:
    """Work, and begin again where that ends: a schema or a backend may come after the start."""
    while True:
        try:
            await work(container)
        except FacepassError as error:
            log.warning("background_work_ended", code=error.code, reason=error.message)
        except Exception as error:
            log.exception("background_work_ended", exc_info=error)
        await asyncio.sleep(BEGIN_AGAIN)


async def work(container: AsyncContainer) -> None:
    """Do jobs and regular work until cancelled; what was running is given back, and noted in the record anyway."""
    set_origin(SYSTEM)
    queue = await container.get(JobQueue)
    await (await container.get(LedgerGate)).passed()
    await queue.run(handler(container), regular=await regular(container))


def handler(container: AsyncContainer) -> Callable[[QueuedJob], Awaitable[None]]:
    """Return what does a job, in a unit of work of its own."""

    async def handle(job: QueuedJob) -> None:
        with behind():
            async with container(scope=Scope.REQUEST) as unit:
                await _done(unit, job)

    return handle


async def _done(unit: AsyncContainer, job: QueuedJob) -> None:
    match job.kind:
        case JobKind.RECONCILE:
            reconcile = await unit.get(Reconcile)
            async with asyncio.timeout(LONGEST_RECONCILIATION):
                await reconcile(workspace=job.workspace, references=[ReferenceId(job.subject)])
        case JobKind.JOB:
            _log_run(await (await unit.get(RunJob))(workspace=job.workspace, job=JobId(job.subject)))


def _log_run(job: Job | None) -> None:
    if job is None:
        return
    why = {"code": job.failures[-1].code} if job.failures and job.status is not JobStatus.SUCCEEDED else {}
    log.info("job_run", job=str(job.id), kind=job.kind.value, status=job.status.value, attempts=job.attempts, **why)


async def regular(container: AsyncContainer) -> Sequence[Regular]:
    """Return what comes round: the sweep, and what each backend wants done."""
    every = (await container.get(Settings)).job_queue.upkeep_seconds

    async def repair() -> None:
        with behind():
            async with container(scope=Scope.REQUEST) as unit:
                await (await unit.get(Repair))()

    async def file_erasures() -> None:
        with behind():
            async with container(scope=Scope.REQUEST) as unit:
                await (await unit.get(FileErasures))()

    async def refile_erasures() -> None:
        with behind():
            async with container(scope=Scope.REQUEST) as unit:
                lost = await (await unit.get(RefileErasures))()
        if lost:
            log.warning("erasures_filed_again", entries=lost)

    erase = await container.get(EraseDue)

    async def erase_due() -> None:
        with behind():
            erased = await erase()
        if erased:
            log.info("due_erased", people=erased)

    async def accounts() -> None:
        with behind():
            async with container(scope=Scope.REQUEST) as unit:
                await (await unit.get(PurgeAccounts))()

    return [
        Regular(name="erase_due", every=ERASE_EVERY, work=erase_due),
        Regular(name="file_erasures", every=max(every, FILE_EVERY), work=file_erasures),
        Regular(name="refile_erasures", every=DAILY, work=refile_erasures),
        Regular(name="repair", every=every, work=repair),
        Regular(name="accounts", every=SELDOM, work=accounts),
        *(Regular(name=one.name, every=every, work=one.tidy) for one in await container.get(list[Upkeep])),
    ]
