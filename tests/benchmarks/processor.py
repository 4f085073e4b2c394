"""Whose processor time it was."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil  # type: ignore[import-untyped]  # it ships no types

from adapters.embedded.postgres import EmbeddedPostgres


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of processor time, by layer."""

    event_loop: float
    """The server's main thread: HTTP, the use case, the database's client."""
    inference: float
    """The server's other threads."""
    postgres: float

    def __sub__(self, earlier: Self) -> "Spent":
        return Spent(
            event_loop=self.event_loop - earlier.event_loop,
            inference=self.inference - earlier.inference,
            postgres=self.postgres - earlier.postgres,
        )

    def __add__(self, other: Self) -> "Spent":
        return Spent(
            event_loop=self.event_loop + other.event_loop,
            inference=self.inference + other.inference,
            postgres=self.postgres + other.postgres,
        )


def spent(server: int, cluster: Path) -> Spent:
    """Return what a server process and the private PostgreSQL in a folder have taken so far."""
    threads = {thread.id: thread.user_time + thread.system_time for thread in psutil.Process(server).threads()}
    return Spent(
        event_loop=threads.pop(server),
        inference=sum(threads.values()),
        postgres=sum(sum(process.cpu_times()[:2]) for process in postgres_processes(cluster)),
    )


def postgres_processes(cluster: Path) -> Iterator[psutil.Process]:
    """The postmaster and its children, those that live."""
    postmaster = EmbeddedPostgres(cluster).status().pid
    if postmaster is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        yield psutil.Process(postmaster)
        for child in psutil.Process(postmaster).children(recursive=True):
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                yield child
