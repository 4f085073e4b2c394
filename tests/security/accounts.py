from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from dishka import Scope

from application.use_cases.accounts.make_administrator import MakeAdministrator
from entrypoints.settings import AccountsSettings, Settings
from tests.e2e.in_process import InProcess, in_process, settings_for
from tests.e2e.with_jobs import WithJobs

PASSWORD: Final = "correct horse battery"
OTHER_PASSWORD: Final = "staple tuesday orange"
ROOT: Final = "root@example.org"

Tokens = dict[str, Any]


def settings(url: str, folder: Path, *, registration: str = "open") -> Settings:
    """Return the settings of a service where people register like this."""
    made = settings_for(url, folder, folder / "models")
    return msgspec.structs.replace(made, accounts=msgspec.convert({"registration": registration}, AccountsSettings))


@asynccontextmanager
async def accounts_of(url: str, folder: Path, *, registration: str = "open") -> AsyncIterator["Accounts"]:
    """Open a service without a socket, and call it as people who have accounts do."""
    chosen = settings(url, folder, registration=registration)
    async with (
        in_process(chosen, WithJobs(), work=False) as service,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(service.app), base_url="http://facepass/api/v1", timeout=60.0
        ) as client,
    ):
        yield Accounts(service, client)


class Accounts:
    """People who register, log in and call."""

    def __init__(self, service: InProcess, client: httpx.AsyncClient) -> None:
        self.service: Final = service
        self.client: Final = client

    async def register(self, email: str, password: str = PASSWORD, **more: object) -> httpx.Response:
        return await self.client.post("/auth/register", json={"email": email, "password": password, **more})

    async def log_in(self, email: str, password: str = PASSWORD, *, agent: str = "a test") -> httpx.Response:
        return await self.client.post(
            "/auth/login", json={"email": email, "password": password}, headers={"User-Agent": agent}
        )

    async def signed_in(self, email: str, password: str = PASSWORD) -> Tokens:
        """Return the tokens of somebody who is there."""
        answer = await self.log_in(email, password)
        assert answer.status_code == 200, answer.text
        tokens: Tokens = answer.json()
        return tokens

    async def member(self, email: str = "ada@example.org") -> Tokens:
        """Register somebody, and return their tokens."""
        answer = await self.register(email)
        assert answer.status_code == 201, answer.text
        return await self.signed_in(email)

    async def administrator(self, email: str = ROOT) -> Tokens:
        """Make an administrator as the command line does, and return their tokens."""
        async with self.service.container(scope=Scope.REQUEST) as unit:
            make = await unit.get(MakeAdministrator)
            await make(email=email, password=PASSWORD, workspace=self.service.workspace)
        return await self.signed_in(email)

    async def refresh(self, token: str) -> httpx.Response:
        return await self.client.post("/auth/refresh", json={"refresh_token": token})

    async def call(
        self,
        method: str,
        path: str,
        tokens: Tokens | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401 - httpx's own arguments
    ) -> httpx.Response:
        """Call as somebody, or as nobody."""
        bearer = {} if tokens is None else {"Authorization": f"Bearer {tokens['access_token']}"}
        return await self.client.request(method, path, headers={**bearer, **(headers or {})}, **more)
