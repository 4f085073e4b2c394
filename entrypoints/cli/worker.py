"""`facepass worker`."""

import click

from entrypoints.cli.session import FAILED, console, results, run, session, settings_of_process
from entrypoints.worker.signs_of_life import seen


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
    ago = run(seen, settings_of_process())
    if ago is None:
        console.print("No worker of this host has given a sign of life.")
        context.exit(FAILED)
    results.print(f"A worker gave a sign of life {ago:.0f} s ago.")


async def _work() -> None:
    from entrypoints.worker.worker import work_until_told  # noqa: PLC0415 - models' libraries, which a check never needs

    async with session() as container:
        await work_until_told(container)
