"""`facepass worker`, with a handler of the tests' own in place of one of the service's, and leases of seconds."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from dishka import Provider, Scope, decorate, provide

from adapters.job_queue.arq import open_arq_job_queue
from application.ports.job_queue import JobQueue
from application.use_cases.jobs.handlers import JobHandler, JobHandlers, ReportProgress
from application.use_cases.jobs.run_job import RunJob
from domain.job import Job, JobWork
from entrypoints.logs import configure_logs
from entrypoints.settings import Settings, read_settings
from entrypoints.wiring.startup import opened
from entrypoints.worker.worker import work_until_told

OWN = JobWork.INDEX_MIGRATION
LEASE = 3.0
SECRET = "the name of a person"


class Steps(JobHandler):
    """Leaves a file for each step; waits in one for a file of the test's, or fails there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(self, job: Job, progress: ReportProgress) -> Mapping[str, object]:
        folder = self._folder / str(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        steps = int(str(job.parameters["steps"]))
        for step in range(steps):
            await progress(step, steps, "stepping")
            if (folder / f"done-{step}").exists():
                continue
            if step == job.parameters.get("fails_in"):
                raise RuntimeError(SECRET)
            if step == job.parameters.get("waits_in"):
                (folder / f"waits-{os.getpid()}").touch()
                while not (folder / "go").exists():
                    await asyncio.sleep(0.05)
                    await progress(step, steps, "waiting")
            # Done twice it is an error.
            (folder / f"done-{step}").touch(exist_ok=False)
        return {"steps": steps}


class Own(Provider):
    scope = Scope.APP

    def __init__(self, steps: Path) -> None:
        super().__init__()
        self._steps = steps

    @decorate
    def handlers(self, handlers: JobHandlers) -> JobHandlers:
        return JobHandlers({**handlers, OWN: Steps(self._steps)})

    @provide(override=True)
    async def queue(self, settings: Settings) -> AsyncIterator[JobQueue]:
        chosen = settings.job_queue
        async with open_arq_job_queue(str(chosen.url), queue=chosen.name, lease=LEASE) as queue:
            yield queue

    @decorate
    def quickly(self, run: RunJob) -> RunJob:
        return replace(run, lease=timedelta(seconds=LEASE), first_wait=timedelta(seconds=0.2))


async def main() -> None:
    settings = read_settings(dotenv=None)
    configure_logs(settings)
    async with opened(settings, Own(settings.data_path.with_name("steps"))) as container:
        await work_until_told(container)


if __name__ == "__main__":
    asyncio.run(main())
