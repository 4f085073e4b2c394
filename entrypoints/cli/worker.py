"""`facepass worker`."""

import click

from entrypoints.cli.session import FAILED, console, results, run, session
from entrypoints.worker.worker import seen, work_until_told


@click.command(epilog="With --check: exit status 0 where a worker of this host is alive, 1 where none is.")
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
    ago = run(_seen)
    if ago is None:
        console.print("No worker of this host has given a sign of life.")
        context.exit(FAILED)
    results.print(f"A worker gave a sign of life {ago:.0f} s ago.")


async def _work() -> None:
    async with session() as container:
        await work_until_told(container)


async def _seen() -> float | None:
    async with session() as container:
        return await seen(container)
