import asyncio

import pytest

from application.use_cases.batch import ITEMS_PER_BATCH, each
from domain.errors import FacepassError, InvalidValue, PersonNotFound, TooManyItems


async def test_one_items_error_is_no_others() -> None:
    async def do(item: int) -> int:
        if item == 1:
            raise PersonNotFound("no such person")
        return item

    first, second, third = await each([0, 1, 2], do)
    assert (first, third) == (0, 2)
    assert isinstance(second, PersonNotFound)


async def test_a_mistake_of_ours_is_raised_as_it_is_and_ends_the_items_that_run() -> None:
    begun = asyncio.Event()
    ended: list[str] = []

    async def do(item: str) -> None:
        if item == "mistaken":
            await begun.wait()
            raise ZeroDivisionError
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(item)

    with pytest.raises(ZeroDivisionError):
        await each(["slow", "mistaken"], do)
    assert ended == ["slow"]


async def test_a_batch_that_is_cancelled_cancels_its_items() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def do(_: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    batch = asyncio.create_task(each([0], do))
    await begun.wait()
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert ended.is_set()


@pytest.mark.parametrize(("size", "error"), [(0, InvalidValue), (ITEMS_PER_BATCH + 1, TooManyItems)])
async def test_a_batch_has_one_to_a_hundred_items(size: int, error: type[FacepassError]) -> None:
    async def do(item: int) -> int:
        return item

    with pytest.raises(error):
        await each(range(size), do)
    assert await each(range(ITEMS_PER_BATCH), do) == list(range(ITEMS_PER_BATCH))
