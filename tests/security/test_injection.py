import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
import pytest
from litestar.handlers import HTTPRouteHandler
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from adapters.face_embedder.memory import MemoryFaceEmbedder
from adapters.persistence.tables import METADATA
from domain.permission import Permission, Role
from entrypoints.http.access import PERMISSION_OPTION
from entrypoints.http.app import API
from tests.conftest import another_database
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.signed_in import caller, sign_in
from tests.e2e.with_jobs import WithJobs
from tests.security.house import with_rates

PAYLOADS: Final = (
    "\\'; DELETE FROM galleries; --' OR '1'='1",
    "%",
    "a\x00b",
    '{"$ne": null}, $.* {{7*7}} ${7*7} %s%n \ud7ff\uffff' + "a" * 2000,
)
NOBODY: Final = "01a1f9ba-6210-711f-a62a-9f40b20f2bb1"
HEADERS: Final = ("If-Match", "Idempotency-Key", "Prefer", "X-Request-Id", "User-Agent", "Origin", "X-Forwarded-For")
PREFIX: Final = "/api/v1"
COUNTED: Final = frozenset({"audit_entries", "audit_heads", "answers", "login_failures"})
"""What refused calls may add to."""
ADA: Final = MemoryFaceEmbedder.picture("ada")

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class House:
    """A service with a person in its gallery, and the rows of its database."""

    service: InProcess
    rows: AsyncConnection
    described: Schema

    async def state(self) -> str:
        """Return what stands in every table, but for when keys and sessions were used last."""
        each = " || ".join(
            "coalesce((SELECT md5(string_agg(one, ',' ORDER BY one))"  # noqa: S608 - names of our tables
            f" FROM (SELECT (to_jsonb(t) - 'last_used_at')::text AS one FROM \"{name}\" t) rows), '')"
            for name in sorted(set(METADATA.tables) - COUNTED)
        )
        return str(await self.rows.scalar(text(f"SELECT {each}")))


@pytest.fixture(scope="module")
async def house(postgres_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder: Path = tmp_path_factory.mktemp("injection")
    async with another_database(postgres_url, migrated_url) as url:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        settings = with_rates(settings_for(url, folder, folder))
        async with in_process(settings, WithJobs(), work=False) as service, engine.connect() as rows:
            enrolled = await service.client.post(
                "/galleries/default/references", files={"image": ("ada", ADA)}, data={"external_id": "ada"}
            )
            assert enrolled.status_code == 201, enrolled.text
            yield House(service, rows, service.app.openapi_schema.to_schema()["paths"])
        await engine.dispose()


@pytest.mark.parametrize("route", API, ids=lambda route: f"{next(iter(route.http_methods))} {next(iter(route.paths))}")
async def test_text_is_only_text_wherever_it_comes_from(house: House, route: HTTPRouteHandler) -> None:
    """It is never an error of ours, and what is refused or only read changes no row."""
    method = next(iter(route.http_methods))
    (template,) = route.paths
    operation = house.described[PREFIX + re.sub(r":\w+\}", "}", template)][method.lower()]
    ends = Permission(route.opt[PERMISSION_OPTION]) is Permission.ACCOUNT and method != "GET"
    headers = await credentials(house)
    async with caller(house.service, {}) as client:
        before = await house.state()
        for call in chain.from_iterable(calls(method, template, operation, payload) for payload in PAYLOADS):
            if ends:  # the session, the membership or the password
                headers = await credentials(house)
                before = await house.state()
            answer = await client.request(method, **{**call, "headers": {**headers, **call.get("headers", {})}})
            said = (method, template, call, answer.status_code, answer.text[:500])
            assert answer.status_code < 500, said
            if method != "GET" and answer.is_success:
                before = await house.state()
            elif method != "GET":
                assert await house.state() == before, said
        assert await house.state() == before


async def credentials(house: House) -> dict[str, str]:
    roles = {house.service.workspace: Role.OWNER}
    return (await sign_in(house.service.container, roles=roles, administrator=True)).headers


def calls(method: str, template: str, operation: Schema, payload: str) -> Iterator[dict[str, Any]]:
    """Put a text in each place of a call, one at a time."""
    names = re.findall(r"\{(\w+):\w+\}", template)
    good = {name: "default" if name == "gallery" and method != "DELETE" else NOBODY for name in names}
    for name in names:
        yield {"url": path(template, {**good, name: quote(payload, safe="")})}
    url = path(template, good)
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            yield {"url": url, "params": {parameter["name"]: payload}}
    yield {"url": url, "headers": {"X-Workspace-Id": payload.encode()}}
    yield {"url": url, "headers": dict.fromkeys(HEADERS, payload.encode())}
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        for body in spoiled(media["schema"], payload):
            if kind == "application/json":
                yield {"url": url, "json": body}
            elif payload == PAYLOADS[0]:
                yield {"url": url, "files": form(body)}


def path(template: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+):\w+\}", lambda found: values[found[1]], template)


def form(body: dict[str, Any]) -> list[tuple[str, Any]]:
    parts: list[tuple[str, Any]] = []
    for name, value in body.items():
        if name in {"image", "other_image"}:
            parts.append((name, ("a.jpg", ADA)))
        else:
            parts.append((name, (None, value if isinstance(value, str) else json.dumps(value))))
    return parts


def spoiled(schema: Schema, payload: str) -> Iterator[Any]:
    """Make values that are good but for one place, where the text stands."""
    one = next(one for one in schema.get("anyOf", schema.get("oneOf", [schema])) if one.get("type") != "null")
    if one.get("type") == "array":
        yield from ([value] for value in spoiled(one.get("items", {}), payload))
    elif one.get("properties"):
        required = {name: good(name, one["properties"][name]) for name in one.get("required", ())}
        if "image" in one["properties"]:
            required["image"] = good("image", {})
        for name, field in one["properties"].items():
            yield from ({**required, name: value} for value in spoiled(field, payload))
    elif one.get("type") == "object":
        yield {payload: "x"}
        yield {"x": payload}
    else:
        yield payload


def good(name: str, schema: Schema) -> Any:  # noqa: ANN401 - whatever the body takes there
    known = {
        "role": "viewer",
        "email": f"{uuid4().hex}@example.org",
        "scopes": ["recognise"],
        "person_id": NOBODY,
        "image": msgspec.json.decode(msgspec.json.encode(ADA)),
    }
    if name in known:
        return known[name]
    return [] if schema.get("type") == "array" else f"{name} {uuid4().hex}"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\\\..\\\\x.jpg", "x.jpg"),
        ("/etc/cron.d/injected", "injected"),
        ("C:\\\\Windows\\\\x.jpg", "x.jpg"),
        ("%2e%2e%2fx.jpg", "%2e%2e%2fx.jpg"),
        ("x\x00.jpg", "x.jpg"),
        ("' OR '1'='1", "' OR '1'='1"),
    ],
)
async def test_of_a_files_name_only_a_plain_name_is_kept(house: House, sent: str, kept: str) -> None:
    answer = await upload(house, f'filename="{sent}"')
    assert answer.status_code == 201, answer.text
    assert [one["filename"] for one in answer.json()["accepted"]] == [kept]


@pytest.mark.parametrize("line", ["\r\n", "\n", "\r", "\r\nX-Injected: 1\r\n"])
async def test_a_line_that_ends_in_a_files_name_begins_no_header(house: House, line: str) -> None:
    before = await house.state()
    answer = await upload(house, f'filename="a{line}b"')
    assert answer.status_code in {201, 422}, answer.text
    assert "X-Injected" not in answer.headers
    if answer.status_code == 201:
        (made,) = answer.json()["accepted"]
        assert made["filename"] is None or made["filename"].isprintable()
    else:
        assert await house.state() == before


async def upload(house: House, named: str) -> httpx.Response:
    head = f'--edge\r\nContent-Disposition: form-data; name="image"; {named}\r\n\r\n'
    who = '\r\n--edge\r\nContent-Disposition: form-data; name="external_id"\r\n\r\nada\r\n--edge--\r\n'
    return await house.service.client.post(
        "/galleries/default/references",
        content=head.encode() + ADA + who.encode(),
        headers={"Content-Type": "multipart/form-data; boundary=edge"},
    )
