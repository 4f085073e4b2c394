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
    """Do every item, and return each one's result or its error, in order: one's failure is no other's."""
    free = asyncio.Semaphore(ITEMS_AT_ONCE)

    async def one(item: Item) -> Result | FacepassError:
        async with free:
            try:
                return await do(item)
            except FacepassError as error:
                return error

    return list(await asyncio.gather(*map(one, checked_batch(items))))
