"""Many items in one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from domain.errors import FacepassError, InvalidValue, TooManyItems

ITEMS_PER_BATCH = 100
"""As many items as one batch call may hold."""

ITEMS_AT_ONCE = 4
"""Items of one batch that are worked on together."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def checked_batch(items: Sequence[Item]) -> Sequence[Item]:
    """Return them as they are. Raises `InvalidValue` for none and `TooManyItems` for more than 100."""
    if not items:
        raise InvalidValue("a batch needs at least one item", field="items")
    if len(items) > ITEMS_PER_BATCH:
        raise TooManyItems(f"a batch holds at most {ITEMS_PER_BATCH} items")
    return items


async def each(items: Sequence[Item], do: Callable[[Item], Awaitable[Result]]) -> list[Result | FacepassError]:
    """Do every item, and return each one's result or its error, in order: one's failure is no other's.

    What is no `FacepassError` is a mistake of ours: it ends the batch with the items that are being worked on, and is
    raised as it is.
    """
    free = asyncio.Semaphore(ITEMS_AT_ONCE)

    async def one(item: Item) -> Result | FacepassError:
        async with free:
            try:
                return await do(item)
            except FacepassError as error:
                return error

    batch = checked_batch(items)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in batch]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
