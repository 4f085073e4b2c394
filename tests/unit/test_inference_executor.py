import asyncio
import threading
from collections.abc import Callable

import pytest

from adapters.inference.budget import DecodeBudget
from adapters.inference.executor import InferenceExecutor
from application.ports.errors import PortBusy, PortUnavailable

LONG = 30.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in threads and sets no event
            await asyncio.sleep(0.001)


class Gate:
    """Work that says when it started, and ends when it may."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.open = threading.Event()
        self.ended = False

    def __call__(self) -> str:
        self.started.set()
        assert self.open.wait(LONG)
        self.ended = True
        return "done"


async def test_work_returns_what_it_returns_and_raises_what_it_raises() -> None:
    executor = InferenceExecutor(threads=1)
    assert await executor.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await executor.run(lambda: 1 // 0)
    await executor.close()


async def test_work_is_done_in_other_threads_as_many_as_were_asked_for() -> None:
    executor = InferenceExecutor(threads=2)
    meeting = threading.Barrier(2, timeout=LONG)
    names = await asyncio.gather(*(executor.run(lambda: (meeting.wait(), threading.get_ident())[1]) for _ in range(2)))
    assert len({*names, threading.get_ident()}) == 3
    await executor.close()


async def test_a_full_queue_refuses_at_once_and_takes_work_again_later() -> None:
    executor = InferenceExecutor(threads=1, queue_limit=1)
    gate = Gate()
    running = asyncio.create_task(executor.run(gate))
    await until(gate.started.is_set)
    waiting = asyncio.create_task(executor.run(lambda: "second"))
    await until(lambda: executor.in_flight == 2)
    with pytest.raises(PortBusy) as refused:
        await executor.run(lambda: "third")
    assert refused.value.retry_after >= 1.0
    gate.open.set()
    assert (await running, await waiting) == ("done", "second")
    await until(lambda: executor.in_flight == 0)
    assert await executor.run(lambda: "fourth") == "fourth"
    await executor.close()


async def test_work_that_waits_too_long_is_refused_and_never_done() -> None:
    executor = InferenceExecutor(threads=1, wait_limit=0.01)
    gate, late = Gate(), Gate()
    running = asyncio.create_task(executor.run(gate))
    await until(gate.started.is_set)
    with pytest.raises(PortBusy):
        await executor.run(late)
    gate.open.set()
    assert await running == "done"  # running work is not bounded by the wait limit
    await executor.close()
    assert not late.started.is_set()


async def test_cancelled_before_its_start_work_is_never_done() -> None:
    executor = InferenceExecutor(threads=1)
    gate, dropped = Gate(), Gate()
    running = asyncio.create_task(executor.run(gate))
    await until(gate.started.is_set)
    waiting = asyncio.create_task(executor.run(dropped))
    await until(lambda: executor.in_flight == 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: executor.in_flight == 1)
    gate.open.set()
    await running
    await executor.close()
    assert not dropped.started.is_set()


async def test_closing_waits_for_running_work_and_refuses_more() -> None:
    executor = InferenceExecutor(threads=1)
    gate = Gate()
    running = asyncio.create_task(executor.run(gate))
    await until(gate.started.is_set)
    closing = asyncio.create_task(executor.close())
    await asyncio.sleep(0)
    with pytest.raises(PortUnavailable):
        await executor.run(lambda: 1)
    gate.open.set()
    await closing
    assert gate.ended
    assert await running == "done"
    await executor.close()


def in_thread(budget: DecodeBudget, megapixels: float, gate: Gate) -> threading.Thread:
    def hold() -> None:
        with budget.reserved(megapixels):
            gate()

    thread = threading.Thread(target=hold)
    thread.start()
    return thread


def test_what_fits_the_budget_is_in_flight_together_and_the_rest_waits() -> None:
    budget = DecodeBudget(48.0, wait_limit=LONG)
    gates = [Gate() for _ in range(3)]
    threads = [in_thread(budget, 24.0, gate) for gate in gates[:2]]
    assert all(gate.started.wait(LONG) for gate in gates[:2])
    threads.append(in_thread(budget, 24.0, gates[2]))
    assert not gates[2].started.is_set()
    gates[0].open.set()
    assert gates[2].started.wait(LONG)
    for gate in gates:
        gate.open.set()
    for thread in threads:
        thread.join(LONG)


def test_more_than_the_whole_budget_is_granted_when_nothing_else_is_in_flight() -> None:
    budget = DecodeBudget(10.0, wait_limit=0.01)
    with budget.reserved(500.0), pytest.raises(PortBusy), budget.reserved(0.1):
        pass
    with budget.reserved(10.0):
        pass


def test_a_wait_that_is_given_up_leaves_the_queue_to_others() -> None:
    budget = DecodeBudget(10.0, wait_limit=0.01)
    with budget.reserved(6.0):
        with pytest.raises(PortBusy), budget.reserved(5.0):
            pass
        with budget.reserved(4.0):
            pass


def test_what_fails_gives_its_share_back() -> None:
    budget = DecodeBudget(1.0, wait_limit=0.01)
    with pytest.raises(ZeroDivisionError), budget.reserved(1.0):
        raise ZeroDivisionError
    with budget.reserved(1.0):
        pass
