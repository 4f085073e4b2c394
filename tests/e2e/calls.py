"""The calls of the main job, as tests of whole services make them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx

from application.use_cases.upkeep.verify_index import IndexReport, VerifyIndex
from tests.e2e.in_process import Served
from tests.e2e.wire import is_problem

REFERENCES: Final = "/galleries/default/references"
PEOPLE: Final = "/galleries/default/people"


async def enrol(client: httpx.AsyncClient, image: bytes, **fields: str) -> dict[str, Any]:
    """Return the answer, person and all."""
    answer = await client.post(REFERENCES, files={"image": image}, data=fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def found(client: httpx.AsyncClient, image: bytes) -> list[str]:
    """Return the external ids of the people who match, best first."""
    answer = await client.post("/search", files={"image": image})
    assert answer.status_code == 200, answer.text
    return [match["person"]["external_id"] for match in answer.json()["faces"][0]["matches"]]


async def is_verified(client: httpx.AsyncClient, image: bytes, external_id: str) -> bool:
    answer = await client.post("/verify", files={"image": image}, data={"external_id": external_id})
    assert answer.status_code == 200, answer.text
    verified: bool = answer.json()["verified"]
    return verified


async def listed(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(path)).json()["items"]
    return items


async def agreement(service: Served) -> IndexReport:
    """Compare the index of the gallery `default` with the record."""
    verify = await service.container.get(VerifyIndex)
    return await verify(workspace=service.workspace, gallery="default")


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so, for a minute."""
    async with asyncio.timeout(60):
        while not await so():  # noqa: ASYNC110 - what is waited for happens in servers, which have no event here
            await asyncio.sleep(0.05)


def is_down(answer: httpx.Response) -> None:
    is_problem(answer, 503, "dependency_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
