"""`facepass worker`."""

import click

from application.ports.errors import PortUnavailable
from entrypoints.cli.session import FAILED, console, results, run, session, settings_of_process
from entrypoints.settings import Settings
from entrypoints.worker.signs_of_life import seen


@click.command(
    epilog="With --check: exit status 1 where no worker of this host is alive, else 0: also while the queue is away,"
    " for which workers wait, and which restarting them would not bring back."
)
@click.option("--check", is_flag=True, help="Say whether a worker runs on this host; for health checks.")
@click.pass_context
def worker(context: click.Context, *, check: bool) -> None:
    """Do background work.

    Until it is interrupted; jobs that run then are given back, and another worker takes them. Any number of workers,
    on any number of hosts, share one queue.
    """
    if not check:
        run(_work)
        return
    try:
        ago = run(_seen, settings_of_process())
    except _QueueAway as away:
        console.print(f"{away} Whether a worker waits for it cannot be told.", markup=False)
        return
    if ago is None:
        console.print("No worker of this host has given a sign of life.")
        context.exit(FAILED)
    results.print(f"A worker gave a sign of life {ago:.0f} s ago.")


class _QueueAway(click.ClickException):
    """Nobody can be asked."""

    def __str__(self) -> str:
        return self.message


async def _seen(settings: Settings) -> float | None:
    try:
        return await seen(settings)
    except PortUnavailable as error:
        raise _QueueAway(f"The queue is away: {error.message}.") from error


async def _work() -> None:
    from entrypoints.worker.worker import work_until_told  # noqa: PLC0415 - models' libraries, which a check never needs

    async with session() as container:
        await work_until_told(container)
